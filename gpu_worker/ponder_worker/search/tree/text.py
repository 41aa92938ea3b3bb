"""What nodes say."""

from __future__ import annotations

from ponder_worker.search.port import Engine
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


def text_of(node: Node, tree: SearchTree, engine: Engine) -> str:
    """Its part of the path's text; a character that begins in one step and ends in the next counts to the next."""
    text = _spelled(node, tree, engine)
    return text[: max(0, len(text) - node.stop_chars)]


def num_too_many(leaf: Node, tree: SearchTree, engine: Engine) -> int:
    """Characters of the stop string that ended this leaf which are still in the text of the steps before it."""
    return max(0, leaf.stop_chars - len(_spelled(leaf, tree, engine))) if leaf.stop_chars else 0


def _spelled(node: Node, tree: SearchTree, engine: Engine) -> str:
    """All of its text, a stop string included."""
    ids = tree.ids_to(node)[len(tree.root.ids) :]
    text = engine.decode(ids)
    before = engine.decode(ids[: len(ids) - len(node.ids)]).rstrip("�") if len(ids) > len(node.ids) else ""
    return text[len(before) :] if text.startswith(before) else engine.decode(node.ids)
