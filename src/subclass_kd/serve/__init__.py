"""``skd serve``: a bundle's student behind HTTP, a page for people and JSON for programs. torch is never loaded."""
