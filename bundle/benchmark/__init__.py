"""Comparisons, each reproduced by one command: what the network costs (``speed``), how it does beside other methods.

``methods`` find a field, ``measure`` registers and scores one pair, ``worker`` does so in a process of its own,
``accuracy`` runs all pairs and keeps what is done, ``tables``, ``figures`` and ``curve`` show what came out;
``equal_terms`` trains the networks that are compared.
"""
