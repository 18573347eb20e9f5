"""`make reference`: writes the pages, and says which had changed."""

import sys

from tests.reference import pages, settings


def main() -> int:
    """Write what differs. Return 1 when a setting has no meaning yet, which only a person can write."""
    for path, text in pages.made().items():
        file = pages.HERE / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(f"{path}: written")
    missing = settings.undescribed((pages.HERE / pages.SETTINGS).read_text())
    for key in missing:
        print(f"{pages.SETTINGS}: {key}: write what it means into the last cell of its row", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
