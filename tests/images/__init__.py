"""The image and the files of docs/deploy, on a real Docker engine that the tests start for themselves."""
