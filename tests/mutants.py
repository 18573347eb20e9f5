"""Takes a mechanism out of a copy of the project and shows that the tests which hold its promise go red.

`make mutants` runs all of them. docs/promises.md names them beside the promises; the simulation has more of its
own (tests/simulation/test_mutants.py). The text to be replaced must be there exactly once, so that a mutant cannot
rot unseen.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent


class Mutant(NamedTuple):
    """What is replaced in which file by what, and the tests that must miss it."""

    file: str
    before: str
    after: str
    tests: str


MUTANTS = {
    "a stale holder commits": Mutant(
        "configstore/store/commit.py",
        "fences = (CreateRevision(fence.key, fence.token),) if fence else ()",
        "fences = ()",
        "tests/store/test_leases.py tests/store/test_tree.py",
    ),
    "what was written over is taken for unwritten": Mutant(
        "configstore/store/items.py",
        "reversed(_superseded_since(kv, keys, path, after, current))",
        "()",
        "tests/store/test_tree.py tests/cli/test_lost_answers.py",
    ),
    "a set is cut in two": Mutant(
        "configstore/store/packing.py",
        "units.setdefault(step.set or step.path, [])",
        "units.setdefault(step.path, [])",
        "tests/store/test_tree.py",
    ),
    "a shorter retention counts for what others were promised": Mutant(
        "configstore/store/chunks.py",
        "lease, longest = (other, left) if left > longest else (lease, longest)",
        "pass",
        "tests/store/test_chunks.py",
    ),
    "a losing side is written each time": Mutant(
        "configstore/store/losing_side.py",
        "_LEASE_SHARE = 0.5",
        "_LEASE_SHARE = 2",
        "tests/store/test_tree.py",
    ),
    "a nonce is the same each time": Mutant(
        "configstore/store/sealing.py",
        "nonce = secrets.token_bytes(NONCE)\n        line, inside",
        "nonce = bytes(NONCE)\n        line, inside",
        "tests/store/test_sealing.py -k same_bytes",
    ),
    "names of pieces show that content is equal": Mutant(
        "configstore/model/seal.py",
        'b"piece\\0" + bound_to(place, root, path, piece)',
        'b"piece\\0" + piece',
        "tests/store/test_sealing.py -k show_to_be_equal",
    ),
    "what a sealed record replaces stays plain": Mutant(
        "configstore/store/commit.py",
        "return before.value if envelope is PLAIN else envelope.encode(record)",
        "return before.value",
        "tests/store/test_sealing.py -k not_kept_in_plain",
    ),
    "what was sealed is made plain by who has no key": Mutant(
        "configstore/store/commit.py",
        "if needs_seal and not self._envelopes.opens(write.path, old):",
        "if False:",
        "tests/store/test_sealing.py -k lost_the_keyring",
    ),
    "an outer subtree's key is believed in an inner one": Mutant(
        "configstore/store/envelope.py",
        "return key if own and len(own.subtree) <= len(key.subtree) else None",
        "return key",
        "tests/store/test_sealing.py -k of_an_outer_subtree",
    ),
    "what a hook says of a sealed file is reported": Mutant(
        "sidecar/programs/hooks.py",
        "mapping.seal not in {None, Policy.OFF}",
        "False",
        "tests/sidecar/programs/test_hooks.py -k files_are_sealed",
    ),
    "a set is cut for want of a key": Mutant(
        "sidecar/remote/commit.py",
        "_batches(_sealable(tree, mapping, pushes, alone, committed))",
        "_batches(pushes)",
        "tests/sidecar/remote/test_commit.py -k want_of_a_key",
    ),
    "a plain record is written among sealed ones": Mutant(
        "configstore/cli/session.py",
        "if tree.envelopes.keyring is not None:",
        "if True:",
        "tests/cli/test_seal.py -k needs_one",
    ),
    "sealing again leaves no trace of what it replaced": Mutant(
        "configstore/store/resealing.py",
        "operations.append(Put(before, envelope.encode(moved), lease))",
        "pass",
        "tests/store/test_sealing.py -k stays_what_it_is",
    ),
    "sealing again compares nothing": Mutant(
        "configstore/store/resealing.py",
        "compares: list[Compare] = [ModRevision(item.key, item.mod_revision)]\n"
        "        operations: list[Operation] = []\n"
        "        if is_current:",
        "compares: list[Compare] = []\n        operations: list[Operation] = []\n        if is_current:",
        "tests/store/test_sealing.py -k in_between",
    ),
    "pieces that another record names are removed": Mutant(
        "configstore/store/resealing.py",
        "sorted(old - used - new)",
        "sorted(old - new)",
        "tests/store/test_sealing.py -k outlive",
    ),
    "pieces of what was plain stay": Mutant(
        "configstore/store/resealing.py",
        "sorted(old - used - new)",
        "()",
        "tests/store/test_sealing.py -k nothing_left",
    ),
    "an unfinished rotation is begun anew": Mutant(
        "configstore/cli/seal_rotate.py",
        "if not self._is_unfinished(tree):",
        "if True:",
        "tests/e2e/test_sealing.py -k killed",
    ),
    "a new key is used before all have it": Mutant(
        "configstore/cli/seal_rotate.py",
        "while lack := lacking(tree, self._ring):",
        "while lack := []:",
        "tests/cli/test_seal.py -k lack_the_new_key",
    ),
    "keyrings without their master get another": Mutant(
        "configstore/keyrings/folder.py",
        "if self.master is None and self.keyrings:",
        "if False:",
        "tests/cli/test_seal.py -k never_given",
    ),
    "a keyring of another master is overwritten": Mutant(
        "configstore/keyrings/folder.py",
        "        if strange:\n",
        "        if False:\n",
        "tests/cli/test_seal.py -k never_overwritten",
    ),
    "a key that is needed is dropped": Mutant(
        "configstore/cli/seal_forget.py",
        "if not _is_needed(master, secret, found)",
        "if True",
        "tests/cli/test_seal.py -k needed_still",
    ),
    "large content is in memory as a whole": Mutant(
        "configstore/store/chunks.py",
        "else content()",
        "else list(content())",
        "tests/store/test_chunks.py",
    ),
    "much is removed without a question": Mutant(
        "configstore/cli/remove.py",
        "if not args.yes and len(doomed) > FREE_DELETES:",
        "if False:",
        "tests/cli/test_remove.py",
    ),
    "a silent client keeps its lease": Mutant(
        "configstore/store/lease_session.py",
        "if self._heard is not None and self._heard < self._renewed:",
        "if False:",
        "tests/store/test_leases.py tests/e2e/test_leases.py",
    ),
    "what waited travels although another held the lease": Mutant(
        "sidecar/cycle/lease.py",
        "return self._others > self._baseline.sides.clean_at or self._losses > self._losses_when_clean",
        "return False",
        "tests/e2e/test_leases.py -k gives_way",
    ),
    "a command without its lease is forgotten": Mutant(
        "sidecar/control/lease_state.py",
        "if self.lost_section() or boottime() < self._doubtful_until:",
        "if False:",
        "tests/e2e/test_leases.py -k smuggled",
    ),
    "what was refused before counts as committed": Mutant(
        "sidecar/control/section.py",
        "return known is None or not left.sure or left.local != known.local",
        "return known is None or not left.sure",
        "tests/e2e/test_leases.py -k named_and_never",
    ),
    "what lost to a write past the lease counts as committed": Mutant(
        "sidecar/control/section.py",
        "count = now.conflicts - (before.conflicts if now.conflicts >= before.conflicts else 0)",
        "count = 0",
        "tests/e2e/test_leases.py -k past_the_lease",
    ),
    "a hold begins on older content": Mutant(
        "sidecar/control/section.py",
        "return now.seen >= newest and not now.unshown and not now.yields",
        "return now.seen >= newest and not now.yields",
        "tests/e2e/test_leases.py -k older_than",
    ),
    "a lease is given back once": Mutant(
        "configstore/store/lease_session.py",
        "return isinstance(error, StoreClosedError)",
        "return True",
        "tests/store/test_leases.py -k given_back",
    ),
    "a lease with little time left is good enough": Mutant(
        "configstore/store/leases.py",
        "FRESH = 0.8",
        "FRESH = 0.0",
        "tests/store/test_leases.py -k little_time",
    ),
    "a note is made once": Mutant(
        "configstore/store/leases.py",
        "if isinstance(error, StoreClosedError):",
        "if error:",
        "tests/store/test_leases.py -k noted_at_the_end",
    ),
    "a renewal alone tells that a lease was ended": Mutant(
        "configstore/store/leases.py",
        "self._watch_own_key(session, key)",
        "True",
        "tests/store/test_leases.py -k noticed_at_once",
    ),
    "a lease waits for itself": Mutant(
        "configstore/client.py",
        'if name in os.environ.get("CONFIGSTORE_LEASES", "").split():',
        "if False:",
        "tests/e2e/test_leases.py -k within_itself",
    ),
    "no recovery at the start": Mutant(
        "sidecar/cycle/assembly.py",
        "baseline.agree(recover(root, before if baseline.is_new else journal))",
        "baseline.agree({})",
        "tests/sidecar/local/test_recovery.py tests/e2e/test_crash_sweep.py",
    ),
    "files being written are read": Mutant(
        "configstore/files/reading.py",
        "    if written(answer):\n        raise UnstableError\n",
        "",
        "tests/files/test_reading.py",
    ),
    "who may not be asked about is nobody": Mutant(
        "configstore/files/reader.py",
        "return self._writers is not None and self._writers.writing(path)",
        "return False",
        "tests/sidecar/local/test_writers.py",
    ),
    "a file closed after writing is known by its stat": Mutant(
        "sidecar/local/scan.py",
        " or path in current.scan.again",
        "",
        "tests/sidecar/local/test_scan.py",
    ),
    "what came out in exchange is dropped unread": Mutant(
        "sidecar/local/fingerprint.py",
        "    if not expected.sha256:\n",
        "    if True:\n",
        "tests/sidecar/local/test_taking_back.py",
    ),
    "a set that cannot be placed whole stays mixed": Mutant(
        "sidecar/local/set_steps.py",
        "        broken = self._progress.broken\n",
        "        broken: dict[int, StorePath] = {}\n",
        "tests/sidecar/local/test_taking_back.py",
    ),
    "a scan of everything trusts its memory": Mutant(
        "sidecar/local/scan.py",
        "            self._drop_unseen(scan)\n",
        "            pass\n",
        "tests/sidecar/local/test_scan.py",
    ),
    "a lost mount is not noticed": Mutant(
        "sidecar/local/mirrored_directory.py",
        "            return self._compare()\n",
        "            return None\n",
        "tests/sidecar/local/test_mirrored_directory.py",
    ),
    "what was remembered of another mount counts": Mutant(
        "sidecar/state/baseline.py",
        'v=identity.v, mark=header.mark or (identity.mark if unmarked else "")',
        "v=identity.v, mark=identity.mark",
        "tests/sidecar/state/test_directory.py",
    ),
    "a journal of another mount is carried out": Mutant(
        "sidecar/cycle/assembly.py",
        "before if baseline.is_new else journal)",
        "journal)",
        "tests/sidecar/state/test_directory.py",
    ),
    "what anybody could have written is taken over": Mutant(
        "sidecar/state/append_log.py",
        "return plain and not (self._exclusive and (found.st_uid != os.geteuid() or found.st_mode & 0o077))",
        "return plain",
        "tests/sidecar/state/test_directory.py",
    ),
    "a stranger's link leads to the directory": Mutant(
        "configstore/files/descent.py",
        "if is_stranger(os.fstat(link).st_uid) or can_be_exchanged(os.fstat(above)):",
        "if False:",
        "tests/files/test_descent.py tests/attacks/test_links.py",
    ),
    "another's directory is taken for ours": Mutant(
        "sidecar/local/mirrored_directory.py",
        "                self._refuse_exchanged(mark)\n",
        "                pass\n",
        "tests/sidecar/local/test_mirrored_directory.py",
    ),
    "what is put in a directory's place gets its mode": Mutant(
        "sidecar/local/set_steps.py",
        "if known and known.signature.ino != status.st_ino:",
        "if False:",
        "tests/sidecar/local/test_apply.py",
    ),
    "our own directory is published where it was moved to": Mutant(
        "sidecar/local/scan.py",
        "if is_dir and bears_mark(current.descriptor, name):",
        "if False:",
        "tests/sidecar/local/test_scan.py",
    ),
    "a hook has our rights": Mutant(
        "sidecar/programs/privileges.py",
        "            give_up_rights(keep_until_started=run_as.uid is not None)\n",
        "",
        "tests/sidecar/programs/test_privileges.py",
    ),
    "mass deletes pass": Mutant(
        "sidecar/planner/guards.py",
        "return count > FREE_DELETES and count > mapping.max_delete * known",
        "return False",
        "tests/sidecar/cycle/test_requests.py tests/sidecar/planner",
    ),
    "a vanished record deletes": Mutant(
        "sidecar/planner/reconcile.py",
        "return Verdict.FORGET if local is None else Verdict.VANISHED",
        "return Verdict.FORGET if local is None else Verdict.PULL",
        "tests/sidecar/planner",
    ),
    "one that etcd refuses stops the rest": Mutant(
        "sidecar/cycle/execute.py",
        "            done.failure = error\n",
        "            raise\n",
        "tests/sidecar/cycle/test_execute.py",
    ),
    "what is too large is not taken apart": Mutant(
        "sidecar/remote/commit.py",
        "            todo += reversed(_smaller(batch, error, committed))\n",
        "            raise\n",
        "tests/e2e/test_bad_days.py -k too_large",
    ),
    "a token is never renewed": Mutant(
        "configstore/store/etcd/calls.py",
        "self.login.forget(metadata)",
        "raise RuntimeError",
        "tests/store/etcd/test_login.py -k token",
    ),
    "a silent server is believed": Mutant(
        "configstore/store/etcd/liveness.py",
        "            elif stream.last_received <= asked:\n                self._cut(stream)\n",
        "",
        "tests/store/etcd/test_client.py -k fell_silent",
    ),
    "a silent store is not told": Mutant(
        "configstore/store/etcd/liveness.py",
        "lost = found.silent >= contact.SILENCE and asked",
        "lost = False",
        "tests/store/etcd/test_contact.py -k killed",
    ),
    "one member speaks for all": Mutant(
        "configstore/store/etcd/liveness.py",
        "wanted += self._calls.connections.others()",
        "wanted += []",
        "tests/store/etcd/test_contact.py -k hangs",
    ),
    "a wish for a listing is swallowed": Mutant(
        "sidecar/remote/watch.py",
        "if self._wanted or self._stop.is_set()",
        "if self._stop.is_set()",
        "tests/sidecar/remote/test_watch.py -k while_a_listing",
    ),
    "everything is looked at only once": Mutant(
        "sidecar/planner/settle.py",
        "return now >= self._next_full",
        "return False",
        "tests/sidecar/local/test_side.py -k from_time_to_time",
    ),
    "a watch waits out its pause though the store is back": Mutant(
        "configstore/store/etcd/watch.py",
        "if self._calls.contact.wait_while_doubtful(seconds, self._closed.is_set):",
        "if False:",
        "tests/store/etcd/test_contact.py -k goes_on_once",
    ),
    "one watch that is refused takes the place of another": Mutant(
        "configstore/store/etcd/shared.py",
        "part.number = None if answer.canceled else answer.watch_id",
        "part.number = answer.watch_id",
        "tests/store/etcd/test_shared.py -k refused",
    ),
    "each replica that starts reads who all the others are": Mutant(
        "sidecar/presence/enrolment.py",
        "beginning=made_of(us.replica, us.host)",
        'beginning=""',
        "tests/sidecar/presence/test_enrolment.py -k only_those_of_this_host",
    ),
    "a change that came in has each replica read the store": Mutant(
        "sidecar/reporting/gauges.py",
        "if self._lost() != self._lost_then:",
        "if True:",
        "tests/sidecar/reporting/test_gauges.py -k only_a_conflict",
    ),
    "a quiet replica reports all the time": Mutant(
        "sidecar/presence/presence.py",
        "due = max(0.0, self._renewed + RENEW - self._clock())",
        "due = self._reported.clear() or 0.2",
        "tests/e2e/test_two_replicas.py -k then_nothing_is_written",
    ),
    "staged files are open to all": Mutant(
        "sidecar/local/stage.py",
        "0o600",
        "0o644",
        "tests/sidecar/local/test_apply.py -k birth",
    ),
    "links may lead out": Mutant(
        "configstore/model/path.py",
        '    if up > path.count("/"):\n',
        "    if False:\n",
        "tests/attacks/test_links.py -k out",
    ),
    "links may lead out in steps": Mutant(
        "configstore/model/path.py",
        '    if ".." in steps[up:]:\n',
        "    if False:\n",
        "tests/attacks/test_links.py -k no_set",
    ),
    "what two readers may read differently is read": Mutant(
        "configstore/model/untrusted.py",
        "if _encoder.encode(value) != text:",
        "if False:",
        "tests/attacks/test_bytes.py -k two_readers",
    ),
    "JSON nested deep ends its reader": Mutant(
        "configstore/model/untrusted.py",
        "except RecursionError:",
        "except ZeroDivisionError:",
        "tests/attacks/test_bytes.py -k two_readers",
    ),
    "words of a stranger's reach the terminal": Mutant(
        "configstore/cli/render.py",
        'write_text("\\t".join(map(printable, line.split("\\t"))))',
        "write_text(line)",
        "tests/cli/test_render.py -k escaped",
    ),
    "a sidecar's refusal may end with 0": Mutant(
        "configstore/client.py",
        'int(number_of(answer, "code", 5)) or 1',
        'int(number_of(answer, "code", 5))',
        "tests/attacks/test_sidecar_that_lies.py -k never_ends_with_0",
    ),
    "paths of the store are believed": Mutant(
        "configstore/model/path.py",
        'if component in {".", ".."}:',
        "if False:",
        "tests/model/test_path.py tests/e2e/test_hostile_store.py",
    ),
    "what cannot be read holds up its set": Mutant(
        "sidecar/remote/commit.py",
        "if push.path != failure.path and push.in_set not in numbers]",
        "if False]",
        "tests/sidecar/cycle/test_engine.py",
    ),
    "what could not be read waits for an event": Mutant(
        "sidecar/local/side.py",
        "            directories |= self._unread()\n",
        "            pass\n",
        "tests/e2e/test_local_faults.py -k descriptors",
    ),
    "exported files are open to all": Mutant(
        "configstore/files/writing.py",
        "_NEW, 0o600,",
        "_NEW, 0o644,",
        "tests/cli/test_import_export.py -k birth",
    ),
    "who only reads may write": Mutant(
        "configstore/model/grants.py",
        'writes = need.writes or family == "conflicts"',
        "writes = True",
        "tests/model/test_grants.py tests/attacks/test_compromised_service.py",
    ),
    "another's subtree within one's own may be written": Mutant(
        "configstore/model/grants.py",
        "strangers = _strangers_within(service, need) if need.writes else []",
        "strangers = []",
        "tests/model/test_grants.py",
    ),
    "a neighbour's name is let into a range": Mutant(
        "configstore/cli/access_whom.py",
        "    if found:\n        one = found[0]",
        "    if False:\n        one = found[0]",
        "tests/cli/test_access.py -k neighbour",
    ),
    "access control stays on though nobody is known": Mutant(
        "configstore/cli/access_apply.py",
        "            kv.accounts.disable()\n",
        "            pass\n",
        "tests/cli/test_access.py -k taken_back",
    ),
    "what a role has too much stays": Mutant(
        "configstore/store/accounts.py",
        "        yield _revoke(name, grant)\n",
        "        pass\n",
        "tests/store/test_accounts.py",
    ),
    "a right that a mapping lacks is not told": Mutant(
        "configstore/doctor/trials.py",
        "        if not may(kv, each.grant)\n",
        "        if False\n",
        "tests/cli/test_access.py -k by_mapping",
    ),
    "an import heeds no lease": Mutant(
        "configstore/cli/imports.py",
        "    if not name:\n",
        "    if True:\n",
        "tests/cli/test_import_export.py -k held_lease",
    ),
    "an import writes what it can": Mutant(
        "configstore/cli/host.py",
        "    if host.problems and not skip_bad:\n",
        "    if False:\n",
        "tests/cli/test_import_export.py -k cannot_be_stored",
    ),
    "a read-only directory is known again": Mutant(
        "sidecar/cycle/assembly.py",
        "                private.mark = secrets.token_hex(16)\n",
        "                pass\n",
        "tests/real/test_certificate_sources.py -k restarted",
    ),
    "companions are not held back": Mutant(
        "sidecar/planner/sets.py",
        "        if problem or path in waiting or path in sides.unstable:\n",
        "        if False:\n",
        "tests/sidecar/planner/test_sets.py",
    ),
    "trouble that began earlier is no part of a set": Mutant(
        "sidecar/local/scan.py",
        "if path not in before or before[path] != mark}",
        "if path not in before}",
        "tests/sidecar/local/test_scan.py -k touched",
    ),
    "a file that stays open delays every set": Mutant(
        "sidecar/local/side.py",
        "return bool(self._sides.unstable - self._given_up)",
        "return bool(self._sides.unstable)",
        "tests/sidecar/cycle/test_mirror.py -k stays_open",
    ),
    "what a start finds waits for nothing": Mutant(
        "sidecar/local/side.py",
        "if self._watch and not self.scanned_once and self._sides.baseline and self._sides.changed_here():",
        "if False:",
        "tests/sidecar/local/test_sets_on_disk.py",
    ),
    "a file that stays open cuts the sets beside it": Mutant(
        "sidecar/planner/settle.py",
        "        elif now - self._last >= self._settle:\n            self._restless = now\n",
        "",
        "tests/sidecar/local/test_sets_on_disk.py",
    ),
    "a move of ours hides what others did": Mutant(
        "sidecar/local/inotify.py",
        "and others[file] == sum(made)",
        "and file in others",
        "tests/sidecar/local/test_watch.py -k beside_our_moves",
    ),
    "a move in one event with ours is ours": Mutant(
        "sidecar/local/inotify.py",
        " and is_as_left(path):",
        ":",
        "tests/sidecar/local/test_watch.py",
    ),
    "what is at hand is believed of any store": Mutant(
        "configstore/store/commit.py",
        "*((ValueEquals(key, known),) if known is not None else ()),",
        "",
        "tests/store/test_tree.py -k at_the_same_revision",
    ),
    "a set is quiet while the kernel has news": Mutant(
        "sidecar/local/inotify.py",
        "            self._take_events()\n            dirty, self._dirty = self._dirty, Dirty()\n",
        "            dirty, self._dirty = self._dirty, Dirty()\n",
        "tests/sidecar/local/test_sets_on_disk.py",
    ),
    "what has not answered has lost everything": Mutant(
        "sidecar/cycle/engine.py",
        "() if self.remote.lifecycle.phase is Phase.UNKNOWN else self.sides.vanished()",
        "self.sides.vanished()",
        "tests/sidecar/cycle/test_engine.py",
    ),
    "a frozen mapping is always due": Mutant(
        "sidecar/cycle/engine.py",
        "            self.local.schedule.verified(now, sure=not (compares and self.remote.doubtful))",
        "                self.local.schedule.verified(now, sure=not self.remote.doubtful)",
        "tests/sidecar/cycle/test_engine.py",
    ),
    "all that is changed while the store is away is one set": Mutant(
        "sidecar/local/side.py",
        "        self._end_quiet_set()\n",
        "",
        "tests/sidecar/cycle/test_mirror.py -k comes_back",
    ),
    "what was sent is not written down before": Mutant(
        "sidecar/cycle/push.py",
        "self._baseline.sending({",
        "bool({",
        "tests/sidecar/cycle/test_push.py",
    ),
    "a superseded own write is not looked for": Mutant(
        "sidecar/remote/sent.py",
        "        if found:\n",
        "        if False:\n",
        "tests/sidecar/cycle/test_push.py -k own_lost_write",
    ),
    "a set of two hands is not named": Mutant(
        "sidecar/planner/sets.py",
        "for path, others in lost.items() if others}",
        "for path, others in lost.items() if False}",
        "tests/sidecar/planner/test_sets.py",
    ),
    "a conflict is decided before the set is known": Mutant(
        "sidecar/planner/planner.py",
        "        elif verdict is Verdict.CONFLICT and not self.conditions.edits:\n",
        "        elif False:\n",
        "tests/sidecar/planner/test_sets.py",
    ),
    "a set that is torn here is agreed on in part": Mutant(
        "sidecar/local/recovery.py",
        "if placing.group not in torn and (known",
        "if (known",
        "tests/sidecar/local/test_recovery.py",
    ),
    "a piece of another length is handed on": Mutant(
        "sidecar/local/scan.py",
        "if len(piece) != min(CHUNK_SIZE, left):",
        "if False:",
        "tests/sidecar/cycle/test_engine.py tests/sidecar/local/test_scan.py",
    ),
    "a deletion is judged by what has arrived": Mutant(
        "sidecar/planner/guards.py",
        "(each.count, sides.gone_of",
        "(len(going), sides.gone_of",
        "tests/sidecar/planner/test_planner.py",
    ),
    "a directory's tombstone does not wait": Mutant(
        "sidecar/planner/planner.py",
        "        self._keep_directories_of_waiting()\n",
        "",
        "tests/sidecar/planner/test_planner.py",
    ),
    "a directory's tombstone is sent before what was not": Mutant(
        "sidecar/remote/commit.py",
        "lived_in = {above for path in stays for above in ancestors(path)}",
        "lived_in = set()",
        "tests/sidecar/remote/test_commit.py -k waits_in_it",
    ),
    "deletes wait for everybody": Mutant(
        "sidecar/local/side.py",
        "        if gone - self._deleted:\n",
        "        if gone:\n",
        "tests/sidecar/cycle/test_mirror.py -k busy_neighbour",
    ),
    "a setback pauses nobody": Mutant(
        "sidecar/planner/backoff.py",
        "return {path for path, (_, until) in self._failed.items() if until > now}",
        "return frozenset()",
        "tests/sidecar/cycle/test_mirror.py -k again_and_again",
    ),
    "a mapping is ready because a cycle ran": Mutant(
        "sidecar/cycle/engine.py",
        "complete = follows and (pushes_only or not self.sides.missing)",
        "complete = True",
        "tests/sidecar/cycle/test_engine.py",
    ),
    "a choice ends any halt": Mutant(
        "sidecar/cycle/requests.py",
        "if request.reason == reason:",
        "if request.reason:",
        "tests/sidecar/cycle/test_requests.py",
    ),
    "a full log pipe holds the mirror up": Mutant(
        "sidecar/reporting/logs.py",
        "            if self._size + len(encoded) > QUEUE:\n",
        "            self._changed.wait_for(lambda: self._size < QUEUE, 60)\n            if False:\n",
        "tests/sidecar/reporting/test_logs.py -k nobody_reads",
    ),
    "a hangup ends it": Mutant(
        "sidecar/process/signals.py",
        "for number in _ENDING | _IGNORED.keys() | first:",
        "for number in _ENDING | first:",
        "tests/sidecar/process/test_signals.py",
    ),
    "process 1 takes exit codes away": Mutant(
        "sidecar/process/children.py",
        "            if pid not in _own:\n",
        "            if True:\n",
        "tests/sidecar/process/test_children.py -k stays_with",
    ),
    "orphans stay": Mutant(
        "sidecar/process/children.py",
        "                    os.waitpid(pid, os.WNOHANG)\n",
        "                    pass\n",
        "tests/sidecar/process/test_children.py -k reaped",
    ),
    "an engine that hangs is alive": Mutant(
        "sidecar/reporting/stalls.py",
        "if self._stepped is not None and now - self._stepped > STUCK:",
        "if False:",
        "tests/sidecar/reporting/test_stalls.py",
    ),
    "a quiet twin is not asked": Mutant(
        "sidecar/presence/presence.py",
        "                self._ask_rival()\n",
        "",
        "tests/sidecar/presence/test_presence.py -k both_say_so",
    ),
    "what is unsent at the end is fine": Mutant(
        "sidecar/daemon/ending.py",
        "        all_sent = all_sent and not unsent\n",
        "",
        "tests/e2e/test_etcd_away.py -k before_a_container",
    ),
    "a set that waited is told to be quick": Mutant(
        "sidecar/reporting/latency.py",
        "self._count(max(0.0, now - begun))",
        "self._count(0.0)",
        "tests/sidecar/reporting/test_latency.py",
    ),
    "a deletion that waits is told to be slow": Mutant(
        "sidecar/reporting/latency.py",
        "if each.entry.kind is not Kind.GONE or each.move",
        "if True",
        "tests/sidecar/reporting/test_latency.py",
    ),
    "a renewed certificate is not seen": Mutant(
        "sidecar/reporting/gauges.py",
        "if before is None or before.signature != signature:",
        "if before is None:",
        "tests/sidecar/reporting/test_gauges.py",
    ),
    "a conflict of another mapping is counted": Mutant(
        "sidecar/reporting/gauges.py",
        "if mapping.selects(relative_to(path, mapping.store), is_dir=False)",
        "if True",
        "tests/sidecar/reporting/test_gauges.py",
    ),
    "a start without trouble is told": Mutant(
        "sidecar/programs/on_problem.py",
        "self._said = Health.WELL  #",
        "self._said = None  #",
        "tests/sidecar/programs/test_on_problem.py",
    ),
    "a state is told although it was over": Mutant(
        "sidecar/programs/on_problem.py",
        "left = self._since + max(now.patience, self._mapping.settle) - boottime()",
        "left = 0.0",
        "tests/sidecar/programs/test_on_problem.py",
    ),
    "a mirror waits for who is told": Mutant(
        "sidecar/programs/on_problem.py",
        "            before, self._now = self._now, now\n",
        "            before, self._now = self._now, now\n            self._run(now) if now else None\n",
        "tests/sidecar/programs/test_on_problem.py",
    ),
    "a directory that cannot be taken ends all": Mutant(
        "sidecar/cycle/mirror.py",
        "            if not self._watching:\n                raise\n",
        "            raise\n",
        "tests/e2e/test_directories.py -k not_there",
    ),
    "a private file is shown on the page": Mutant(
        "configstore/ui/privacy.py",
        '    return any(is_private(path, entry) for entry in known) or path.lower().endswith(".key")\n',
        "    return False\n",
        "tests/ui/test_values.py tests/ui/test_admission.py -k private",
    ),
    "only a file's newest mode makes it private": Mutant(
        "configstore/ui/privacy.py",
        "    known = tuple(known)\n",
        "    known = tuple(known)[:1]\n",
        "tests/ui/test_admission.py -k no_private_content",
    ),
    "the page keeps content": Mutant(
        "configstore/ui/index.py",
        "    return msgspec.structs.replace(found, record=msgspec.structs.replace(found.record, content=None))\n",
        "    return found\n",
        "tests/ui/test_values.py -k index",
    ),
    "a page of another origin may change something": Mutant(
        "configstore/ui/admission.py",
        "(origin is not None and origin not in self._origins(host))",
        "False",
        "tests/ui/test_admission.py -k origin",
    ),
    "a rebound name is let in": Mutant(
        "configstore/ui/admission.py",
        "if host is None or not self._is_own_host(host):",
        "if False:",
        "tests/ui/test_admission.py -k rebound",
    ),
    "who has no token is let in": Mutant(
        "configstore/ui/admission.py",
        "if not (self._brings_token(scope) or self._has_cookie(headers)):",
        "if False:",
        "tests/ui/test_admission.py -k nobody_sees",
    ),
    "a form without its secret is taken": Mutant(
        "configstore/ui/actions.py",
        'if not self._write or not hmac.compare_digest(given.pop("form", "").encode(), self._form.encode()):',
        'if given.pop("form", "") == self:',
        "tests/ui/test_admission.py -k forms_own",
    ),
    "a page that only reads may write": Mutant(
        "configstore/ui/admission.py",
        "if not self._write:",
        "if False:",
        "tests/ui/test_admission.py -k without_write",
    ),
    "what changed since it was confirmed is changed all the same": Mutant(
        "configstore/ui/actions.py",
        "if proposal.fields != given:",
        "if False:",
        "tests/ui/test_actions.py -k restore",
    ),
    "a replica that was killed is not missed": Mutant(
        "configstore/store/replicas.py",
        "if key not in alive and newest[each.place] == key",
        "if False",
        "tests/sidecar/presence/test_enrolment.py",
    ),
    "no goodbye is said": Mutant(
        "sidecar/presence/enrolment.py",
        "            self._take_over(also_living=True)\n            self._kv.lease_revoke(self._lease)\n",
        "            self._take_over(also_living=True)\n",
        "tests/sidecar/presence/test_enrolment.py",
    ),
    "a problem of many paths hides one of another kind": Mutant(
        "configstore/overview/judge.py",
        "alike = {each.reason: each.count for each in report.alike} or dict(named)",
        "alike = dict(named)",
        "tests/overview/test_judge.py",
    ),
    "status waits for what hangs": Mutant(
        "configstore/doctor/endpoints.py",
        "self._thread.join(max(0.0, end - time.monotonic()))",
        "self._thread.join()",
        "tests/doctor/test_endpoints.py --timeout 20",
    ),
    "a certificate about to end is no trouble": Mutant(
        "sidecar/reporting/gauges.py",
        "if each.ends_soon(now)",
        "if False",
        "tests/sidecar/reporting/test_gauges.py",
    ),
    "members and clients are of one authority": Mutant(
        "configstore/access/certificates.py",
        "layout.PEER, peers, layout.PEER_USER",
        "layout.PEER, clients, layout.PEER_USER",
        "tests/access/test_certificates.py",
    ),
    "a client's certificate is a server's, too": Mutant(
        "configstore/access/issuing.py",
        "CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)",
        "CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)",
        "tests/access/test_certificates.py",
    ),
    "a renewed certificate is for another key": Mutant(
        "configstore/access/certificates.py",
        "key = found.key or issuing.new_key()",
        "key = issuing.new_key()",
        "tests/access/test_certificates.py",
    ),
    "a key is closed to others only when it is whole": Mutant(
        "configstore/access/folder.py",
        "| _FILE, 0o600, dir_fd=fd)",
        "| _FILE, 0o644, dir_fd=fd)",
        "tests/access/test_certificates.py",
    ),
    "a new authority signs before it is trusted": Mutant(
        "configstore/access/authorities.py",
        "authority.bundle.append(issuing.self_signed(issuing.name(_TITLES[name]), key, now))",
        "authority.key, authority.bundle = key, [issuing.self_signed(authority.signing.subject, key, now)]",
        "tests/access/test_certificates.py",
    ),
    "half of a new pair is used": Mutant(
        "configstore/store/etcd/connection.py",
        'return error.reason != "KEY_VALUES_MISMATCH"',
        "return True",
        "tests/store/etcd/test_login.py -k certificate",
    ),
    "certificates are read once": Mutant(
        "configstore/store/etcd/connection.py",
        "if tls_signature(self._settings) == self._tls.signature:",
        "if True:",
        "tests/e2e/test_renewal.py --timeout 100",
    ),
    "a silent store's replicas are fresh": Mutant(
        "configstore/ui/pages.py",
        "blind=bool(self._monitor.failure) or not self._tree.contact().connected",
        "blind=False",
        "tests/ui/test_admission.py -k silent",
    ),
    "a plain record is believed where sealed ones are required": Mutant(
        "configstore/store/envelope.py",
        "return msgspec.structs.replace(record, locked=_PLAIN)",
        "return record",
        "tests/attacks/test_sealed_store.py -k planted_changed",
    ),
    "what cannot be sealed goes plain": Mutant(
        "configstore/store/envelope.py",
        'raise SealingError(f"it cannot be sealed: {_UNFIT}")',
        "return PLAIN",
        "tests/e2e/test_keyrings.py -k cannot_be_sealed",
    ),
    "a value opens wherever it lies": Mutant(
        "configstore/model/seal.py",
        "place.encode(), root.encode(), path.encode(), rest))",
        "place.encode(), root.encode(), rest))",
        "tests/attacks/test_sealed_store.py -k anywhere",
    ),
    "a header may be changed": Mutant(
        "configstore/model/seal.py",
        "place.encode(), root.encode(), path.encode(), rest))",
        "place.encode(), root.encode(), path.encode()))",
        "tests/attacks/test_sealed_store.py -k planted_changed",
    ),
    "what a plain tombstone says of a person is believed": Mutant(
        "configstore/store/envelope.py",
        "if record.origin.deletion is None or self._policy(path) is not Policy.REQUIRED:",
        "if True:",
        "tests/attacks/test_sealed_store.py -k tombstones",
    ),
    "an older record comes back unseen": Mutant(
        "sidecar/remote/sealed.py",
        "if found.record.seal and supersedes < known < found.mod_revision:",
        "if False:",
        "tests/attacks/test_sealed_store.py -k put_back",
    ),
    "a keyring is read at the start alone": Mutant(
        "sidecar/daemon/keyring.py",
        "found = self._file.changed()",
        "found = None",
        "tests/e2e/test_keyrings.py -k by_whatever_means",
    ),
    "a new keyring opens what comes next alone": Mutant(
        "sidecar/daemon/parts.py",
        "                mirror.list_again()\n",
        "",
        "tests/e2e/test_keyrings.py -k by_whatever_means",
    ),
    "without a fitting key it is ready all the same": Mutant(
        "sidecar/cycle/engine.py",
        "and not plan.halted and not unfit",
        "and not plan.halted",
        "tests/e2e/test_keyrings.py -k cannot_be_sealed",
    ),
    "init takes a missing key for a file that is not there": Mutant(
        "sidecar/daemon/commands.py",
        "if any(problem.sealing for problem in mirror.status.problems):",
        "if False:",
        "tests/e2e/test_keyrings.py -k init_places",
    ),
    "a record that is sealed again is a change": Mutant(
        "sidecar/planner/reconcile.py",
        "and bool(base.write_id)",
        "and False",
        "tests/e2e/test_sealed_replicas.py tests/sidecar/planner/test_reconcile.py",
    ),
    "a service speaks of all services' mappings": Mutant(
        "sidecar/daemon/parts.py",
        "each.mapping.service == service or not self._config.local",
        "True",
        "tests/e2e/test_host.py",
    ),
    "one service's socket ends the sidecar of all": Mutant(
        "sidecar/control/sockets.py",
        "if not each.service and len(self._wanted) == 1 and each.path != self._default:",
        "if each.path != self._default:",
        "tests/e2e/test_host.py",
    ),
}


def caught(mutant: Mutant) -> bool:
    """Tell whether the tests go red without the mechanism. Raises AssertionError when it is not where it was."""
    with tempfile.TemporaryDirectory(prefix="configstore-mutant-") as folder:
        copy = Path(folder, "project")
        shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis"))
        target = copy / mutant.file
        text = target.read_text()
        assert text.count(mutant.before) == 1, f"{mutant.file}: {mutant.before!r} is not there exactly once"
        target.write_text(text.replace(mutant.before, mutant.after))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests.split()]
        done = subprocess.run(
            command,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "CONFIGSTORE_TEST_PATIENCE": "30"},
            capture_output=True,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stdout.decode()[-2000:]
        return done.returncode == 1


def main(names: list[str]) -> int:
    """Run the mutants named, or all; returns 1 when one was not caught."""
    missed = [name for name in names or MUTANTS if not _report(name)]
    return 1 if missed else 0


def _report(name: str) -> bool:
    found = caught(MUTANTS[name])
    print(f"{'caught' if found else 'MISSED'}  {name}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
