"""The school's records, generation by generation: each is derived from the one before, the same in every process."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
Content = dict[str, list[Record]]

CLASSES = [f"{grade}{letter}" for grade in (6, 7, 8, 9) for letter in "ab"]
SUBJECTS = {
    "bio": "Biology",
    "eng": "English",
    "geo": "Geography",
    "his": "History",
    "mat": "Mathematics",
    "phy": "Physics",
}
PUPILS = 20
TEACHERS = 12
FIRST_NAMES = "Adam Běla Clara David Eva Filip Greta Hugo Ida Jakub Klára Leo Marie Nina Oto Petra"
LAST_NAMES = "Dvořák Eder Fiala Hora Jelínek Kovář Malý Novák Pokorný Růžička Svoboda"


class School:
    """The school's records by id, and for each class which pupils learn what from whom."""

    def __init__(self) -> None:
        self.classes = {id_: {"id": id_, "name": f"{id_[0]}.{id_[1].upper()}", "room": 100} for id_ in CLASSES}
        self.subjects = {id_: {"id": id_, "name": name, "hours": 3} for id_, name in SUBJECTS.items()}
        self.users: dict[str, Record] = {}
        self.lists: dict[str, dict[str, list[Record]]] = {id_: {} for id_ in CLASSES}
        self.last_number = 0
        for _ in range(TEACHERS):
            self.add_user("teacher", None)
        for class_ in CLASSES:
            for _ in range(PUPILS):
                self.enroll(self.add_user("student", class_))

    def add_user(self, kind: str, class_: str | None) -> Record:
        self.last_number += 1
        name = " ".join(names[self.last_number % len(names)] for names in (FIRST_NAMES.split(), LAST_NAMES.split()))
        user = {"id": f"u{self.last_number:04}", "type": kind, "name": name, "classId": class_}
        self.users[user["id"]] = user | {"email": f"{user['id']}@school.example.com"}
        return self.users[user["id"]]

    def enroll(self, pupil: Record) -> None:
        """Put a pupil on the class' list, for every subject."""
        self.lists[pupil["classId"]][pupil["id"]] = [
            {"userId": pupil["id"], "subjectId": subject, "teacherId": f"u{place + 1:04}"}
            for place, subject in enumerate(self.subjects)
        ]

    def advance(self, number: int) -> list[Record]:
        """Move on to this generation; return what is left on the lists of a pupil who is gone.

        In even generations a pupil leaves, and is taken off the list one generation later.
        """
        class_ = CLASSES[number % len(CLASSES)]
        self.classes[class_]["room"] += number
        list(self.subjects.values())[number % len(SUBJECTS)]["hours"] = 2 + number % 4
        members = self.lists[class_]
        first, second = list(members)[:2]
        self.users[first]["email"] = f"{first}.{number}@school.example.com"
        members[first][0]["teacherId"] = f"u{7 + number % 6:04}"
        self.enroll(self.add_user("student", class_))
        if number % 2:
            return []
        del self.users[second]
        return members.pop(second)


def generation(number: int) -> Content:
    """Return what the school serves in this generation, from 1: records by the path of their endpoint."""
    school = School()
    forgotten: list[Record] = []
    for each in range(2, number + 1):
        forgotten = school.advance(each)
    lists = {class_: [link for links in pupils.values() for link in links] for class_, pupils in school.lists.items()}
    lists[CLASSES[number % len(CLASSES)]] += forgotten
    return {
        "/classes": list(school.classes.values()),
        "/subjects": list(school.subjects.values()),
        "/users": list(school.users.values()),
        **{f"/classes/{class_}/enrollments": links for class_, links in lists.items()},
    }
