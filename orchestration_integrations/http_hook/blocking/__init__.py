"""The blocking hook. All modules of this room are generated from those of ``asynchronous``."""
