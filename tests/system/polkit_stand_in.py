"""A stand-in for polkit that notes the questions, and answers as it is told."""

import dbus
import dbus.service

from caller import Caller
from machine import SYSTEM_BUS, identity
from waiting import eventually

POLKIT = "org.freedesktop.PolicyKit1"
AUTHORITY = f"{POLKIT}.Authority"
DENIAL = "org.freedesktop.DBus.Error.AccessDenied"
YES, NO, ASK = (True, False), (False, False), (False, True)


class Question:
    def __init__(self, subject, action, details, flags, cancellation, answer, fail):
        self.subject, self.action, self.details, self.flags = subject, str(action), dict(details), int(flags)
        self.cancellation, self.cancelled = str(cancellation), False
        self._answer, self._fail = answer, fail

    def answer(self, authorized, challenge=False):
        self._answer((authorized, challenge, dbus.Dictionary({}, signature="ss")))

    def fail(self, name=f"{POLKIT}.Error.Failed"):
        self._fail(dbus.DBusException("no", name=name))


class StandIn(dbus.service.Object):
    """answers: what to say at once by action, else the question is left open."""

    def __init__(self):
        with identity("polkitd"):
            self.caller = Caller(SYSTEM_BUS)
        self.bus = self.caller.bus
        self.questions, self.answers = [], {}
        super().__init__(self.bus, "/org/freedesktop/PolicyKit1/Authority")
        assert self.bus.request_name(POLKIT) == dbus.bus.REQUEST_NAME_REPLY_PRIMARY_OWNER

    @dbus.service.method(AUTHORITY, in_signature="(sa{sv})sa{ss}us", out_signature="(bba{ss})",
                         async_callbacks=("answer", "fail"))
    def CheckAuthorization(self, subject, action, details, flags, cancellation, answer, fail):
        question = Question(subject, action, details, flags, cancellation, answer, fail)
        self.questions.append(question)
        if question.action.rpartition(".")[2] in self.answers:
            question.answer(*self.answers[question.action.rpartition(".")[2]])

    @dbus.service.method(AUTHORITY, in_signature="s", out_signature="")
    def CancelCheckAuthorization(self, cancellation):
        for question in self.questions:
            if question.cancellation == cancellation:
                question.cancelled = True

    def asked(self, number=1):
        """That many questions, the last of them."""
        return eventually(lambda: len(self.questions) >= number and self.questions[number - 1], f"question {number}")

    def leave(self):
        self.bus.release_name(POLKIT)
        self.remove_from_connection()
        self.caller.close()
