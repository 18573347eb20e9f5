"""A replica of a service of Mailu by its preset, with the container's directories below a folder of its own."""

import re
from pathlib import Path

from configstore import presets
from tests.harness.replica import ENVIRONMENT, Replica, seldom


class PresetReplica(Replica):
    """One sidecar with all mappings of a preset; `at` says where a container's path lies.

    more: makes, from `at`, further lines of TOML by mapping.
    """

    def __init__(self, name, base, endpoint, root, preset, more):
        self.preset, self.more = preset, more
        super().__init__(name, base, [endpoint], root)
        self.environment = ENVIRONMENT | {"CONFIGSTORE_PRESET": preset}
        for mapping in self.presets():
            self.at(mapping.path).mkdir(parents=True, exist_ok=True)

    def presets(self):
        """Return its mappings."""
        return [mapping for name in self.preset.split(",") for mapping in presets.load(name)]

    def at(self, path):
        """Return where a path of the container lies."""
        return Path(self.folder, path.lstrip("/"))

    def mappings(self, policy):
        """Return the settings: where each directory lies, and what the test adds."""
        more = self.more(self.at)
        return "\n".join(
            f'[[mapping]]\nname = "{each.name}"\npath = "{self.at(each.path)}"\n{seldom(more.get(each.name, ""))}'
            for each in self.presets()
        )

    def mapping_metric(self, mapping, name):
        """Return one of a mapping's figures."""
        pattern = re.compile(rf'^configstore_{name}\{{mapping="{mapping}"\}} (.*)$', re.MULTILINE)
        return float(pattern.search(self.ask("/metrics")[1])[1])
