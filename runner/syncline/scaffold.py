"""Makes projects: a new one, one of the examples, or the engine's macros brought up to date."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from syncline.errors import ConfigurationError
from syncline.paths import bundle

MACROS = Path("dbt_project/macros/syncline")
"""Where a project keeps its copy of the engine's macros: replaced whole by an upgrade."""

_IGNORED = """\
.env
.syncline/
target/
logs/
dbt_packages/
.user.yml
"""

_SOURCES = """\
# Where records come from. Syncline's docs/reference/settings.md lists every connector and setting.
sources: []
#  - name: shop
#    schema: raw_shop
#    config:
#      meta:
#        syncline:
#          connector: http
#          base_url: ${SHOP_API_URL}
#          auth: {type: bearer, token: "${SHOP_API_TOKEN}"}
#    tables:
#      - name: orders
#        config:
#          meta:
#            syncline: {path: /orders, key: id, data_selector: data}
#
# An entity is a model on it, here dbt_project/models/orders.sql:
#
#  {{ config(materialized='versioned', unique_key='order_id') }}
#
#  select
#      _key,
#      {{ typed('id', 'bigint', required=true) }} as order_id,
#      {{ typed('placedAt', 'timestamptz') }} as placed_at
#  from {{ source('shop', 'orders') }}
"""

_ENV = """\
# Copy to .env, which git ignores. Without DATABASE_URL an embedded Postgres is started in .syncline/.
# DATABASE_URL=postgresql://user:password@localhost:5432/database
# SHOP_API_URL=https://api.example.com
# SHOP_API_TOKEN=
"""


def examples() -> list[str]:
    """Return the names of the examples that ship."""
    return sorted(folder.name for folder in (bundle() / "examples").iterdir() if folder.is_dir())


def create_project(folder: Path, example: str | None = None) -> list[Path]:
    """Write a project into `folder`, made where missing; return the files, relative to it.

    Raises ConfigurationError where there is a project already or no such example.
    """
    if (folder / "dbt_project.yml").exists():
        raise ConfigurationError(
            f"{folder} holds a project already", "Use `syncline init --upgrade` to renew its macros."
        )
    if example is not None and example not in examples():
        raise ConfigurationError(f"there is no example named {example!r}", f"Examples: {', '.join(examples())}.")
    name = example or _project_name(folder)
    ours = bundle()
    models = folder / "dbt_project" / "models"
    models.mkdir(parents=True, exist_ok=True)
    configuration = (ours / "dbt_project.yml").read_text(encoding="utf-8")
    configuration = re.sub(r"^name: .*$", f"name: {name}", configuration, count=1, flags=re.MULTILINE)
    (folder / "dbt_project.yml").write_text(configuration + _own_vars(example), encoding="utf-8")
    shutil.copyfile(ours / "profiles.yml", folder / "profiles.yml")
    upgrade_project(folder)
    if example is None:
        (models / "sources.yml").write_text(_SOURCES, encoding="utf-8")
        (folder / ".env.example").write_text(_ENV, encoding="utf-8")
    else:
        _copy_example(example, folder, models)
    ignored = folder / ".gitignore"
    if not ignored.exists():
        ignored.write_text(_IGNORED, encoding="utf-8")
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)


def upgrade_project(folder: Path) -> Path:
    """Replace the project's copy of the engine's macros by those of this release; return their folder."""
    if not (folder / "dbt_project.yml").exists():
        raise ConfigurationError(f"{folder} holds no project", "Make one with `syncline init DIR`.")
    source, target = bundle() / "dbt_project" / "macros", folder / MACROS
    if (folder / "dbt_project" / "macros").resolve() == source.resolve():
        raise ConfigurationError(f"{folder} is Syncline's own checkout", "Its macros are the ones that get copied.")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _own_vars(example: str | None) -> str:
    """Return what the example adds to dbt_project.yml: its vars, where it has any."""
    own = bundle() / "examples" / (example or "") / "vars.yml"
    return "\n" + own.read_text(encoding="utf-8") if own.is_file() else ""


def _copy_example(name: str, folder: Path, models: Path) -> None:
    ours = bundle()
    # The agency's models are the bundled project's own; the other examples bring theirs.
    own = ours / "examples" / name / "models"
    shutil.copytree(own if own.is_dir() else ours / "dbt_project" / "models", models, dirs_exist_ok=True)
    skipped = shutil.ignore_patterns("__pycache__", ".*", "models", "vars.yml")
    shutil.copytree(ours / "examples" / name, folder / "examples" / name, ignore=skipped)


def _project_name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9_]+", "_", folder.resolve().name.lower()).strip("_")
    return name if name and not name[0].isdigit() else f"project_{name}".rstrip("_")
