"""Build the network, and save and load its weights together with the parameters that rebuild it.

Takes images, returns the logits of each head; independent of losses, annotations and metrics.
"""
