"""One network goes on from the representation of another; and is what arrives there in distribution? Balogh & Jelasity, AAAI 2025."""
