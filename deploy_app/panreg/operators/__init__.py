"""The application: a graph of operators, each of which takes what the one before made."""
