"""How much memory an executor needs, and whether it leaks memory or other resources.

A process that writes to a page shared since a fork gets a private copy of that page.  So the memory of one
process is measured by its private pages.  The memory of all workers together is measured by the pages that at
least one of them holds and the host does not; each page counts once, however many workers share it.  The
memory of the host is measured by all its pages.
"""
