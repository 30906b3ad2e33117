import os
import signal

import pytest

from cxrtool.errors import StoppedError
from cxrtool.flow.signals import CODES, StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_is_noted_and_told_when_it_is_safe(number, code):
    with StopRequest() as request:
        request.raise_if_stopped()
        assert request.error() is None
        os.kill(os.getpid(), number)
        error = request.error()
        assert error.exit_code == code
        assert number.name in error.message
        assert "to continue" in error.hint
        with pytest.raises(StoppedError):
            request.raise_if_stopped()


def send_twice():
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_second_signal_stops_at_once():
    with StopRequest() as request:
        with pytest.raises(StoppedError, match="at once") as caught:
            send_twice()
        # The first is what is told where the second one was outlived.
        assert request.error().exit_code == 75
    assert caught.value.exit_code == 143


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in CODES]
    with pytest.raises(StoppedError), StopRequest() as request:
        send_twice()
    assert request.error() is not None
    assert [signal.getsignal(number) for number in CODES] == before
