"""What may be chosen in a history: names, contents, times, and what strikes."""

from hypothesis import strategies as st

from configstore.model.record import INLINE_MAX
from tests.simulation.faults import Fault

NAMES = ["a", "b", "A", "d", "d/a", "d/b", "d/e", "d/e/a", "\u00e9", "e\u0301"]  # two spellings of one letter
paths = st.sampled_from(NAMES)
replicas = st.integers(0, 2)
contents = st.sampled_from([b"one", b"two", b"three", b""])
seconds = st.sampled_from([0.0, 0.5, 61.0])
sizes = st.sampled_from([0, 0, 0, 0, 0, 0, 0, INLINE_MAX + 1])
calls = st.sampled_from(["before", "after"])
deaths = st.sampled_from(["crash", "crash", "crash twice"])
network = st.one_of(
    st.builds(Fault, calls, st.integers(1, 4), st.just("lost")),
    st.builds(Fault, st.just("before"), st.integers(1, 6), st.just("late")),
)
faults = st.one_of(
    network,
    st.builds(Fault, st.sampled_from(["before", "after", "rename", "disk"]), st.integers(1, 8), st.just("pair")),
    st.builds(Fault, calls, st.integers(1, 4), deaths, st.sampled_from(["", "a", "d/a", "pair"])),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 4), st.just("edit"), paths),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 6), st.just("other"), paths),
    st.builds(Fault, st.just("rename"), st.integers(1, 3), deaths, st.sampled_from(["", "a", "pair"])),
    st.builds(Fault, st.just("disk"), st.integers(1, 20), deaths),
)
looks = st.sampled_from(["list", "entry", "read"])
acts = st.sampled_from(["edit", "create", "remove", "move"])
scans = st.builds(Fault, looks, st.integers(1, 8), acts, paths)
pair_scans = st.builds(Fault, looks, st.integers(1, 8), st.just("pair"))
