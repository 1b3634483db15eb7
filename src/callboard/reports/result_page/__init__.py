"""One result as a page: what it learned, where it is wrong, whether it can be true."""
