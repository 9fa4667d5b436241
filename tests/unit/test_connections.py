"""Who may connect: a user's share, and what is closed for whom."""

from __future__ import annotations

from cache_manager.connections import MOST_PER_USER, Connections, Seat


class Guests:
    """Connections, and which of them were closed."""

    def __init__(self, descriptors: int) -> None:
        self.connections = Connections(descriptors, frozenset({0, 500}))
        self.closed: list[str] = []

    def enter(self, uid: int, name: str = "") -> Seat | None:
        """Let one in."""
        return self.connections.enter(uid, lambda: self.closed.append(name))


def test_the_share_leaves_room_for_others_however_few_files_may_be_open() -> None:
    """No more than 1,024, and a quarter."""
    for descriptors, each in ((1024, 256), (4096, 1024), (10**6, MOST_PER_USER), (3, 1)):
        assert Connections(descriptors, frozenset()).each == each


def test_beyond_a_users_share_the_oldest_that_said_nothing_is_closed() -> None:
    """And another user's never."""
    guests = Guests(16)
    other = guests.enter(7, "other")
    assert other is not None
    seats = [guests.enter(1000, str(number)) for number in range(4)]
    assert all(seats)
    seats.append(guests.enter(1000, "next"))
    assert guests.closed == ["0"]
    for seat in seats:
        assert seat is not None
        guests.connections.heard(seat)
    assert guests.enter(1000, "refused") is None
    for seat in seats[:2]:
        assert seat is not None
        guests.connections.leave(seat)
    assert guests.enter(1000, "last") is not None
    assert guests.closed == ["0"]


def test_who_has_all_connections_in_use_gets_no_more_unless_trusted() -> None:
    """Root and the manager's own user are never shut out."""
    for uid, gets_in in ((1000, False), (0, True), (500, True)):
        guests = Guests(16)
        for _ in range(4):
            seat = guests.enter(uid)
            assert seat is not None
            guests.connections.heard(seat)
        before = guests.connections.count
        assert (guests.enter(uid) is not None) is gets_in
        assert guests.connections.count == before + gets_in
        assert guests.closed == []


def test_where_all_together_have_too_many_the_one_with_most_idle_ones_gives_one_up() -> None:
    """Many users can do together what one may not."""
    guests = Guests(8)
    for number in range(2):
        guests.enter(1000, f"a{number}")
    for uid in (1, 2, 3, 4):
        guests.enter(uid, str(uid))
    assert guests.connections.count == guests.connections.together == 6
    assert guests.enter(9) is not None
    assert guests.closed == ["a0"]
