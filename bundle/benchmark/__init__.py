"""Comparisons, each reproduced by one command: ``speed`` of the operator and network, ``accuracy`` beside other methods.

``methods`` find a field, ``accuracy`` runs and measures them, ``tables`` and ``figures`` show what came out.
"""
