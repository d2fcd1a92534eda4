"""Does a network answer an unfamiliar image with the label of its nearest training example? Yang et al., TMLR 2023."""
