"""Re-initialisation: single layers get other weights, and only what follows them runs again.

Gamba et al. 2023 (after Zhang, Bengio & Singer, "Are All Layers Created Equal?", JMLR 2022). A cell is a layer with the
weights of a source. In one pass over the data, the trained network runs once per batch as the trunk; what enters a layer
is common to all its cells, and each of them runs from the last cut before the layer to the end. A layer inside a residual
block thus runs its block again, with nothing but its own weights replaced. Logits are those of the whole network with
these weights, bit for bit on the CPU. No parameter of the network is ever written to.
"""
