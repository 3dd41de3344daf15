"""Letters to members. A member without an address is parked; the member's next letter goes on."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.decision import Ask, Context, Decision, Done, Emit, Park, Ref, Service, States
from penstock.event import Event
from tests.flows.library.events import LetterSent

TOLD = ("loan.began", "loan.refused", "loan.overdue", "loan.ended")


class Correspondence(Struct, frozen=True, kw_only=True):
    """The letters about one loan: asked for, and sent."""

    member: str = ""
    asked: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()


class Member(Struct, frozen=True, kw_only=True):
    """How many letters a member caused, over all loans."""

    letters: int = 0


def needs(event: Event, own: Any) -> tuple[Ref, ...]:
    """The member, shared by all the member's loans."""
    return (Ref("member", event.data.member),) if event.type in TOLD else ()


def decide(states: States, event: Event, context: Context) -> Decision:
    """Ask for one letter a fact, and tell when it is sent."""
    ref = Ref("correspondence", event.key)
    own = states[ref] or Correspondence()
    if event.type == "answer":
        about = event.data.name
        told = Emit("letters", LetterSent(member=own.member, about=about))
        return Done({ref: replace(own, sent=(*own.sent, about))}, (told,))
    who = event.data.member
    if event.type == "loan.began" and who.startswith("nowhere"):
        return Park("no_address", f"{who} has no address")
    member = Ref("member", who)
    letters = (states[member] or Member()).letters + 1
    ask = Ask("post", event.type, {"to": who})
    after = replace(own, member=who, asked=(*own.asked, event.type))
    return Done({ref: after, member: Member(letters=letters)}, (), (ask,))


SERVICE = Service(
    name="notices",
    kind="correspondence",
    states={"correspondence": Correspondence, "member": Member},
    reads={"loans": TOLD, "notices.answers": ("answer",)},
    decide=decide,
    needs=needs,
)
