"""What to do where a package of an extra is not installed."""

INSTALL_EXTRAS = (
    "Install it: pip install --require-hashes --requirement constraints-image.txt, in the "
    "repository, where that file is."
)
"""That file has the packages of all extras, each with its hashes. By the name of this package alone
pip would ask an index, where that name is nobody's, or somebody else's."""
