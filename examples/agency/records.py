"""The agency's records, generation by generation: each is derived from the one before, the same in every process."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from random import Random
from typing import Any, TypeVar

Record = dict[str, Any]
Content = dict[str, list[Record]]
T = TypeVar("T")

SEED = 20250101
# Parents before children: the first records are made in this order, later ones in the opposite order.
SIZES = {
    "talents": 300,
    "boards": 40,
    "media-tags": 60,
    "portfolios": 500,
    "portfolio-media": 1500,
    "measurements": 300,
    "socials": 450,
    "boards-portfolios": 240,
}
CHILDREN = {
    "talents": [("portfolios", "talentId"), ("measurements", "talentId"), ("socials", "talentId")],
    "boards": [("boards-portfolios", "boardId")],
    "portfolios": [("portfolio-media", "portfolioId"), ("boards-portfolios", "portfolioId")],
}
# A record of the first stream is named in a list inside the records of the second.
LINKS = {"talents": ("boards", "talents", "talentId"), "media-tags": ("portfolio-media", "tags", "tagId")}
CHANGING = {
    "talents": ("bookable", "dayRate"),
    "boards": ("talents",),
    "media-tags": ("name",),
    "portfolios": ("title", "isPublished"),
    "portfolio-media": ("url", "tags"),
    "measurements": ("waist", "hips", "takenOn"),
    "socials": ("followers",),
    "boards-portfolios": ("position",),
}
# Six digits for every id, so that keys sort as text as they do as numbers: of two records with one unique key, the
# one made first wins, and what refers to it stays whole.
FIRST_ID = 100_000
TWIN_ID = 50_000

FIRST_NAMES = {
    "female": "Ada Amara Bianca Chloé Elif Freya Giulia Hana Ines Jana Kira Leïla Mei Noor Renée Zoë",
    "male": "Adam Bruno César Dario Emil Finn Goran Hugo Idris José Kofi Luca Mateo Noah Omar René",
    "non-binary": "Alex Charlie Kai Kim Lou Robin Sam Yuki",
}
LAST_NAMES = """
    Abebe Almeida Bauer Castel Dubois Eriksen Fontaine Grünwald Haddad Ibáñez Jansen Kovač Laurent Moreau Müller
    Nakamura Núñez Okafor Petrov Quist Rossi Sato Tanaka Ueda Varga Weiss Xu Ybarra Zeman
"""
CITIES = {"Amsterdam": "NL", "Berlin": "DE", "London": "GB", "Milan": "IT", "Paris": "FR", "Zürich": "CH"}
PLATFORMS = ("instagram", "tiktok", "youtube", "x")
SEASONS = ("Spring", "Summer", "Autumn", "Winter")
STYLES = "Runway Editorial Beauty Commercial Fitness Lookbook Streetwear Swim Bridal Tailoring Outdoor Studio"


def slugify(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "-".join(folded.lower().split())


class Agency:
    """The agency's good records, which each call of `advance` moves on by one generation.

    Records are replaced, never changed in place, so that the generations handed out before stay as they were.
    """

    def __init__(self) -> None:
        self.day = date(2025, 1, 1)
        self.random = Random(SEED)
        self.records: dict[str, dict[int, Record]] = {name: {} for name in SIZES}
        self.last_ids = {name: FIRST_ID * place for place, name in enumerate(SIZES, start=1)}
        for name, size in SIZES.items():
            for _ in range(size):
                self.add(name)

    def advance(self) -> None:
        """Remove a few records, change about one in a hundred, and add a few."""
        self.day += timedelta(days=1)
        # Boards and tags are few and long-lived; a tag that goes is one that hardly anything carries.
        quiet = {name for name in ("boards", "media-tags") if self.random.random() < 0.75}
        for name in SIZES:
            if name not in quiet:
                self.remove(name, self.least_used_tag() if name == "media-tags" else self.pick(name)["id"])
        for name, size in SIZES.items():
            for record in self.random.sample(list(self.records[name].values()), max(1, round(size / 100))):
                self.change(name, record)
        # Children first: what is new has no children on its first day, so that it can be faulty (see `flawed`).
        for name, size in reversed(SIZES.items()):
            if name not in quiet:
                for _ in range(max(1, size + self.random.randrange(3) - len(self.records[name]))):
                    self.add(name)

    def add(self, name: str) -> None:
        self.last_ids[name] += 1
        self.put(name, {"id": self.last_ids[name], **self.make(name)})

    def change(self, name: str, record: Record) -> None:
        fresh = self.make(name)
        if name == "boards":
            kept = record["talents"][:-1]
            listed = {link["talentId"] for link in record["talents"]}
            newcomers = [link for link in fresh["talents"] if link["talentId"] not in listed]
            # Boards would empty in the long run, as talents leave, if a change did not fill them up.
            fresh["talents"] = numbered([*kept, *newcomers[: max(1, 16 - len(kept))]])
        self.put(name, {**record, **{field: fresh[field] for field in CHANGING[name]}})

    def remove(self, name: str, id_: int) -> None:
        """Remove a record, its children, and every mention of it."""
        del self.records[name][id_]
        for child, field in CHILDREN.get(name, ()):
            for record in [record for record in self.records[child].values() if record[field] == id_]:
                self.remove(child, record["id"])
        if name in LINKS:
            holder, items, field = LINKS[name]
            for record in list(self.records[holder].values()):
                kept = [link for link in record[items] if link[field] != id_]
                if len(kept) < len(record[items]):
                    self.put(holder, {**record, items: numbered(kept) if holder == "boards" else kept})

    def put(self, name: str, record: Record) -> None:
        updated_at = f"{self.day}T{self.random.randrange(8, 18):02}:{self.random.randrange(60):02}:00Z"
        self.records[name][record["id"]] = {**record, "updatedAt": updated_at}

    def pick(self, name: str) -> Record:
        return self.random.choice(list(self.records[name].values()))

    def least_used_tag(self) -> int:
        uses = dict.fromkeys(self.records["media-tags"], 0)
        for record in self.records["portfolio-media"].values():
            for link in record["tags"]:
                uses[link["tagId"]] += 1
        return min(uses, key=lambda id_: uses[id_])

    def free(self, name: str, field: str, wanted: str) -> str:
        """Return `wanted`, with a number behind it where another record has it already."""
        taken = {record[field] for record in self.records[name].values()}
        numbers = (f"{wanted}-{number}" for number in range(2, len(taken) + 3))
        return next(value for value in (wanted, *numbers) if value not in taken)

    def free_pair(self, name: str, fields: tuple[str, str], draw: Callable[[], tuple[int, T]]) -> tuple[int, T]:
        """Return the first pair drawn that no record has in `fields`."""
        taken = {(record[fields[0]], record[fields[1]]) for record in self.records[name].values()}
        while (pair := draw()) in taken:
            pass
        return pair

    def make(self, name: str) -> Record:
        made: Record = getattr(self, "make_" + name.replace("-", "_"))()
        return made

    def make_talents(self) -> Record:
        gender = self.random.choices(list(FIRST_NAMES), weights=(55, 38, 7))[0]
        name = f"{self.random.choice(FIRST_NAMES[gender].split())} {self.random.choice(LAST_NAMES.split())}"
        slug = self.free("talents", "slug", slugify(name))
        city, country = self.random.choice(list(CITIES.items()))
        return {
            "name": name,
            "slug": slug,
            "birthDate": f"{date(1975, 1, 1) + timedelta(days=self.random.randrange(30 * 365)):%d/%m/%Y}",
            "gender": gender,
            "email": f"{slug}@talents.example.com",
            "phone": f"+44 20 7946 0{self.random.randrange(1000):03}",
            "bookable": self.random.random() < 0.8,
            "dayRate": self.random.randrange(600, 6000, 5) / 2,
            "address": {"city": city, "country": country},
            "languages": self.random.sample(["de", "en", "es", "fr", "it", "ja", "pt"], self.random.randint(1, 3)),
        }

    def make_boards(self) -> Record:
        category = self.random.choice(("women", "men", "development", "commercial"))
        title = f"{category.title()} {self.random.choice(STYLES.split())}"
        links = self.random.sample(list(self.records["talents"]), self.random.randint(8, 24))
        return {
            "title": title,
            "slug": self.free("boards", "slug", slugify(title)),
            "category": category,
            "isPublic": self.random.random() < 0.7,
            "talents": numbered([{"talentId": id_} for id_ in links]),
        }

    def make_media_tags(self) -> Record:
        name = f"{self.random.choice(SEASONS)} {self.random.choice(STYLES.split())}"
        usage = self.random.choice(("editorial", "commercial", "social"))
        return {"name": name, "slug": self.free("media-tags", "slug", slugify(name)), "usage": usage}

    def make_portfolios(self) -> Record:
        kind = self.random.choice(("book", "polaroids", "campaign", "runway"))
        return {
            "talentId": self.pick("talents")["id"],
            "title": f"{kind.title()} {self.random.choice(SEASONS)} {self.day.year - self.random.randrange(8)}",
            "kind": kind,
            "isPublished": self.random.random() < 0.9,
        }

    def make_portfolio_media(self) -> Record:
        portfolio = self.pick("portfolios")["id"]
        kind, suffix = self.random.choices((("image", "jpg"), ("video", "mp4")), weights=(9, 1))[0]
        width, height = self.random.choice(((1200, 1600), (1600, 1200), (1080, 1920), (2400, 3200)))
        tags = self.random.sample(list(self.records["media-tags"]), self.random.randint(0, 4))
        return {
            "portfolioId": portfolio,
            "type": kind,
            "url": f"https://media.example.com/{portfolio}/{self.random.getrandbits(48):012x}.{suffix}",
            "width": width,
            "height": height,
            "credit": {"photographer": f"{self.random.choice('ABCDEFGH')}. {self.random.choice(LAST_NAMES.split())}"},
            "tags": [{"tagId": id_} for id_ in tags],
        }

    def make_measurements(self) -> Record:
        return {
            "talentId": self.pick("talents")["id"],
            "takenOn": f"{self.day - timedelta(days=self.random.randrange(400)):%d/%m/%Y}",
            "height": self.random.randint(163, 195),
            "waist": self.random.randint(56, 86),
            "hips": self.random.randint(80, 104),
            "shoe": {"eu": self.random.randrange(72, 92) / 2},
            "hair": self.random.choice(("black", "blond", "brown", "grey", "red")),
            "eyes": self.random.choice(("blue", "brown", "green", "grey", "hazel")),
        }

    def make_socials(self) -> Record:
        talent, platform = self.free_pair(
            "socials", ("talentId", "platform"), lambda: (self.pick("talents")["id"], self.random.choice(PLATFORMS))
        )
        handle = self.records["talents"][talent]["slug"].replace("-", ".")
        return {
            "talentId": talent,
            "platform": platform,
            "handle": handle,
            "url": f"https://{platform}.example.com/{handle}",
            "followers": int(self.random.paretovariate(0.6) * 400),
        }

    def make_boards_portfolios(self) -> Record:
        board, portfolio = self.free_pair(
            "boards-portfolios",
            ("boardId", "portfolioId"),
            lambda: (self.pick("boards")["id"], self.pick("portfolios")["id"]),
        )
        return {"boardId": board, "portfolioId": portfolio, "position": self.random.randint(1, 99)}

    def flawed(self) -> Content:
        """Return the generation as it is served: the good records, and what somebody got wrong that day.

        What a required field or a unique key rejects has no children, so that foreign keys hold without it.
        """
        random = Random(f"{SEED}/{self.day}")
        served = {name: dict(records) for name, records in self.records.items()}
        newest = self.last_ids["talents"]
        spoilt = {newest}

        def pick(name: str) -> Record:
            record = random.choice([record for id_, record in served[name].items() if id_ not in spoilt])
            spoilt.add(record["id"])
            return record

        def serve(name: str, record: Record) -> None:
            served[name][record["id"]] = record

        serve("talents", {**served["talents"][newest], "name": None})
        serve("talents", {**pick("talents"), "birthDate": "31/02/1990"})
        serve("measurements", {**pick("measurements"), "height": "tall"})
        serve("portfolio-media", {**pick("portfolio-media"), "width": "unknown"})
        serve("socials", {**pick("socials"), "handle": None})
        for name in ("media-tags", "socials"):
            entered_twice = pick(name)
            serve(name, {**entered_twice, "id": entered_twice["id"] + TWIN_ID})
        return {name: list(records.values()) for name, records in served.items()}


def numbered(links: list[Record]) -> list[Record]:
    return [{**link, "position": position} for position, link in enumerate(links, start=1)]


@lru_cache(maxsize=8)
def generation(number: int) -> Content:
    """Return what each endpoint serves in generation `number`, from 1; the thousandth takes two seconds."""
    agency = Agency()
    for _ in range(number):
        agency.advance()
    return agency.flawed()
