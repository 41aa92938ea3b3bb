"""Compares mathematical answers: numbers with units, lists, solution sets and formulas."""
