"""The quickstart as a story: commit, edit, revert, stop and start again, with the real training."""

from __future__ import annotations

from rig.project import Hammer, Project

OBJECTS = ("Job/train-wine", "Model/wine", "Deployment/wine")


def test_commit_edit_and_revert_change_what_is_served_and_fail_no_request(
    quickstart: Project,
) -> None:
    """One commit trains and serves; an edit swaps; a revert brings the earlier model back."""
    body = (quickstart.repository / "request.json").read_text()
    daemon = quickstart.up()
    for name in OBJECTS:
        quickstart.await_ready(name)
    first = quickstart.status("Model/wine").outputs["artifact"].digest
    assert quickstart.infer("wine", body)["label"] == (2,)
    assert len(quickstart.runs()) == 1

    with Hammer(quickstart, "wine", body, "label") as hammer:
        quickstart.edit("wine.yaml", "regularization: 1.0", "regularization: 10.0")
        quickstart.commit("Regularize more")
        quickstart.until(lambda: hammer.answers[-1:] == [(1,)], "the edited model answers")
        second = quickstart.status("Model/wine").outputs["artifact"].digest
        assert second != first
        assert len(quickstart.runs()) == 2

        quickstart.git("revert", "--no-edit", "HEAD")
        quickstart.until(lambda: hammer.answers[-1:] == [(2,)], "the first model answers again")
        for name in OBJECTS:
            quickstart.await_ready(name)
    assert hammer.answers == [(2,), (1,), (2,)]
    assert hammer.failures == []
    assert hammer.requests > 20
    assert quickstart.status("Model/wine").outputs["artifact"].digest == first
    assert len(quickstart.runs()) == 2, "a revert must not train again"

    assert daemon.interrupt() == 0
    again = quickstart.up()
    again.await_answer()
    for name in OBJECTS:
        quickstart.await_ready(name)
    assert quickstart.infer("wine", body)["label"] == (2,)
    assert len(quickstart.runs()) == 2, "a second start must not train again"
    assert again.interrupt() == 0
