"""What a run says on the console."""

from __future__ import annotations

from metro.training.meter import Console


def test_without_a_terminal_progress_is_lines(capsys):
    console = Console(steps=4, start=0, silent=False)
    console.step_done()
    console.log(loss=0.51234, speed=12.3, done=2)
    console.say("validation mpjpe 0.1", done=2)
    console.close()
    assert capsys.readouterr().out == "step 2/4  loss 0.5123  12 img/s\nstep 2/4  validation mpjpe 0.1\n"


def test_other_processes_say_nothing(capsys):
    console = Console(steps=4, start=0, silent=True)
    console.log(loss=0.5, speed=12.3, done=2)
    console.say("validation mpjpe 0.1", done=2)
    console.close()
    assert capsys.readouterr() == ("", "")
