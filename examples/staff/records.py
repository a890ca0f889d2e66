"""The personnel system's records, generation by generation: the same in every process."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

Record = dict[str, Any]
Content = dict[str, list[Record]]

STAFF = 40
DEPARTMENTS = ["Babies", "Toddlers", "Preschool", "After school", "Office"]
FIRST_NAMES = "Anna Bram Chloé Daan Eva Finn Gül Hugo Iris Jasper Kim Lars Maud Noor Olaf Puck"
LAST_NAMES = "de Boer,Bakker,Çelik,Dekker,Jansen,Mulder,de Vries,Smit,van Dijk,Visser,Peters"


class Personnel:
    """Who works here, and each one's employments, the newest last."""

    def __init__(self) -> None:
        self.people: dict[str, Record] = {}
        self.employments: dict[str, list[Record]] = {}
        for place in range(STAFF):
            self.hire(date(2023, 1, 2) + timedelta(days=14 * place))

    def hire(self, day: date) -> None:
        number = len(self.people) + 1
        id_ = f"e{number:03}"
        first = FIRST_NAMES.split()[number % 16]
        last = LAST_NAMES.split(",")[number % 11]
        self.people[id_] = {
            "id": id_,
            "name": {"first": first, "last": last},
            "email": f"{id_}@nursery.example.com",
            "department": DEPARTMENTS[number % len(DEPARTMENTS)],
            "hoursPerWeek": 36 - number % 3 * 4,
        }
        self.employments[id_] = []
        self.employ(id_, day, 2400 + number % 8 * 75)

    def employ(self, id_: str, day: date, salary: int) -> None:
        """End the employment before this one, where there is one, and begin another."""
        terms = self.employments[id_]
        if terms:
            terms[-1]["endDate"] = str(day - timedelta(days=1))
        hours = self.people[id_]["hoursPerWeek"]
        contract = "temporary" if not terms else "permanent"
        terms.append({"startDate": str(day), "endDate": None, "hours": hours, "salary": salary, "contract": contract})

    def advance(self, number: int) -> None:
        """Move on by a month: one moves, one works more for more money, one begins."""
        day = date(2025, 9, 1) + timedelta(days=30 * number)
        ids = list(self.people)
        moves, rises = ids[number % 9], ids[10 + number % 9]
        self.people[moves]["department"] = DEPARTMENTS[(number + len(moves)) % len(DEPARTMENTS)]
        self.people[rises]["hoursPerWeek"] += 2
        self.employ(rises, day, self.employments[rises][-1]["salary"] + 150)
        self.hire(day)


def leaver(number: int) -> str:
    """Return who is away in an even generation, and is back with another employment in the next."""
    return f"e{20 + number // 2 % 15:03}"


def generation(number: int) -> Content:
    """Return what the personnel system serves in this generation, from 1: records by the path of their endpoint."""
    personnel = Personnel()
    for each in range(2, number + 1):
        personnel.advance(each)
        if each % 2 == 1:
            back = leaver(each - 1)
            personnel.employ(back, date(2025, 9, 15) + timedelta(days=30 * each), 2900)
    gone = leaver(number) if number % 2 == 0 else None
    people = [person for id_, person in personnel.people.items() if id_ != gone]
    lists = {f"/employees/{person['id']}/employments": personnel.employments[person["id"]] for person in people}
    return {"/employees": people, **lists}
