"""One module per command of `./dyno`."""
