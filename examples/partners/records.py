"""The sheet's tabs and the CRM's records, generation by generation: the same in every process."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

Row = list[str]
Record = dict[str, Any]

PARTNERS = 150
STAFF = ["Ada Park", "Ben Ortiz", "Cleo Marsh", "Dan Webb", "Elif Kaya", "Finn Boyd", "Gwen Hale", "Hana Sato"]
ROLES = ["Account Manager", "Ads Specialist", "Designer", "Account Manager"]
BRANDS = ["Alder", "Birch", "Cedar", "Dune", "Ember", "Fjord", "Grove", "Harbor", "Isle", "Juniper"]
GOODS = ["Coffee", "Toys", "Outdoor", "Pets", "Kitchen", "Skincare", "Tea"]
TIERS = ["Gold", "Silver", "Bronze"]
INDUSTRIES = ["food", "toys", "sports", "pets", "home", "beauty", "food"]

MASTER = [
    "Partner Code",
    "Brand Name",
    "Contact Email",
    "Tier",
    "Onboarded",
    "Monthly Fee",
    "Commission",
    "Active",
    "Manager",
]
TEAM = ["Staff Code", "Full Name", "Role", "Email", "Started"]
PRODUCTS = ["ASIN", "Partner Code", "Title", "Price", "Launched", "Listed"]


def partner_code(number: int) -> str:
    return f"P-{number:03}"


def brand(number: int) -> str:
    return f"{BRANDS[number % 10]} {GOODS[number % 7]}"


def contact(number: int) -> str:
    return f"hello@{BRANDS[number % 10].lower()}-{GOODS[number % 7].lower()}.example.com"


class Agency:
    """What an agency keeps of its partners: a spreadsheet that people type into, and a CRM."""

    def __init__(self) -> None:
        self.partners = [self.partner_row(number) for number in range(1, PARTNERS + 1)]
        self.team = [self.team_row(number) for number in range(1, len(STAFF) + 1)]
        self.products = [self.product_row(number) for number in range(1, 2 * PARTNERS + 1)]
        self.companies = {partner_code(number): self.company(number) for number in range(1, PARTNERS + 1)}
        self.users = {f"S-{number:02}": self.user(number) for number in range(1, len(STAFF) + 1)}
        # Row 12: the CRM knows a newer address than the sheet. Row 20: it calls the brand by another name.
        self.companies["P-011"]["email"] = "orders@birch-kitchen.example.com"
        self.companies["P-019"]["brand"] = "Juniper Home & Skincare"
        # Typed by hand: no email in row 47, no brand in row 89, no amount in row 103.
        self.partners[45][2] = "hello at grove.example.com"
        self.companies["P-046"]["email"] = None
        self.partners[87][1] = ""
        self.partners[101][5] = "to be agreed"

    def partner_row(self, number: int) -> Row:
        day = date(2023, 1, 9) + timedelta(days=6 * number)
        onboarded = day.strftime("%d/%m/%Y") if number % 4 else day.strftime("%d %b %Y")
        fee = f"${900 + number * 25:,}.00"
        return [
            partner_code(number), brand(number), contact(number), TIERS[number % 3], onboarded, fee,
            f"{5 + number % 4 * 2.5:g}%", "No" if number % 15 == 0 else "Yes", f"S-{number % len(STAFF) + 1:02}",
        ]  # fmt: skip

    def team_row(self, number: int) -> Row:
        name = STAFF[number - 1]
        email = f"{name.split()[0].lower()}@agency.example.com"
        return [f"S-{number:02}", name, ROLES[number % 4], email, date(2022, 3, number).strftime("%d/%m/%Y")]

    def product_row(self, number: int) -> Row:
        # The partner of row 89 is not there as long as it has no name.
        owner = (number - 1) % PARTNERS + 1 if number % PARTNERS != 88 else 1
        price = f"${9 + number % 40}.{number % 10}9"
        launched = (date(2024, 2, 1) + timedelta(days=number)).strftime("%d/%m/%Y")
        title = f"{GOODS[owner % 7]} no. {number}"
        return [f"B0{number:08}", partner_code(owner), title, price, launched, "x" if number % 9 else ""]

    def company(self, number: int) -> Record:
        return {
            "code": partner_code(number),
            "brand": brand(number),
            "email": contact(number),
            "phone": f"+1 (212) 555-{number:04}",
            "industry": INDUSTRIES[number % 7],
            "created": 1_672_531_200 + 86_400 * number,
        }

    def user(self, number: int) -> Record:
        name = STAFF[number - 1]
        return {
            "code": f"S-{number:02}",
            "name": name,
            "email": f"{name.split()[0].lower()}@agency.example.com",
            "seats": 1,
        }

    def advance(self, number: int) -> None:
        """A week on: a mistake is mended, fees and addresses change, the CRM sorts industries anew, a partner joins."""
        self.partners[87][1] = brand(88)
        self.partners[2 + number % 40][5] = f"${2000 + number * 10:,}.00"
        self.partners[60 + number % 20][3] = TIERS[number % 3]
        self.companies[partner_code(30 + number % 10)]["email"] = f"team{number}@partner.example.com"
        self.companies[partner_code(6)]["industry"] = "wellness"
        self.team[number % len(STAFF)][2] = "Team Lead"
        joined = len(self.partners) + 1
        self.partners.append(self.partner_row(joined))
        self.companies[partner_code(joined)] = self.company(joined)


def generation(number: int) -> tuple[dict[str, list[Row]], dict[str, list[Record]]]:
    """Return what is there in this generation, from 1: the sheet's tabs by title, the CRM's records by path."""
    agency = Agency()
    for each in range(2, number + 1):
        agency.advance(each)
    tabs = {
        "Master Sheet": [MASTER, *agency.partners],
        "Team": [TEAM, *agency.team],
        "Products": [PRODUCTS, *agency.products],
    }
    return tabs, {"/companies": list(agency.companies.values()), "/users": list(agency.users.values())}
