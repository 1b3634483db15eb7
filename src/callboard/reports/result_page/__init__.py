"""One result as a page to look at: what it learned, where it is wrong, whether it can be true."""
