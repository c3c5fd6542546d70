"""Steward keeps tabular models in production honest and current."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steward.prediction import Model

__version__ = "0.1.0"
__all__ = ["Model", "__version__"]


def __getattr__(name: str) -> Any:
    """`from steward import Model` imports what answering needs; `import steward` alone imports nothing."""
    if name == "Model":
        from steward.prediction import Model

        return Model
    raise AttributeError(f"module 'steward' has no attribute {name!r}")
