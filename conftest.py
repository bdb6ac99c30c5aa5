"""``pytester`` runs pytest inside the tests; a conftest that is not at the root may not ask for it."""

pytest_plugins = ["pytester"]
