import os
import signal

import pytest

from cxrtool.errors import StoppedError
from cxrtool.flow.signals import StopRequest
from cxrtool.stopping import CODES


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_is_noted_and_told_when_it_is_safe(number, code):
    with StopRequest() as request:
        request.raise_if_stopped()
        assert request.error() is None
        os.kill(os.getpid(), number)
        error = request.error()
        assert error.exit_code == code
        assert number.name in error.message
        assert "to continue" in error.message
        with pytest.raises(StoppedError):
            request.raise_if_stopped()


def send_twice():
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_second_signal_stops_at_once():
    with StopRequest() as request:
        assert request.error() is None
        with pytest.raises(StoppedError, match="stopped by SIGTERM") as caught:
            send_twice()
        # The first is what is told where the second one was outlived.
        assert request.error().exit_code == 75
    assert caught.value.exit_code == 143


def use(*calls):
    """Call all of these with a request, inside its block."""
    with StopRequest() as request:
        for call in calls:
            call(request)


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in CODES]
    with pytest.raises(StoppedError):
        use(StopRequest.error, lambda _: send_twice())
    assert [signal.getsignal(number) for number in CODES] == before


def test_where_nothing_is_to_be_saved_the_first_signal_stops():
    send = lambda _: os.kill(os.getpid(), signal.SIGUSR1)  # noqa: E731
    with pytest.raises(StoppedError, match="SIGUSR1") as caught:
        use(StopRequest.error, StopRequest.raise_if_stopped, send)
    assert caught.value.exit_code == 75


def test_what_arrives_after_the_last_question_is_not_lost():
    send = lambda _: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(StoppedError, match="SIGTERM"):
        use(StopRequest.error, send)
