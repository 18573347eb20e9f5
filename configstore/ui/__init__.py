"""The status page of `configstore ui`: what `status` says, live, with history and diffs, for a browser.

It is a reader of the store like any command, and stands on the command's own functions. `door` decides who comes
in, `privacy` what is never sent; with `--write` alone, `acts` changes something. docs/ui.md shows it.
"""
