"""Steps of embedding models: added, filled, switched, rolled back, dropped."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.orm import sessionmaker

from model_of_steps import COLUMN
from ragschema import embedding_models, jobs
from ragschema.embedding_models import JOB_TYPE
from ragschema.errors import ModelRefused
from random_steps import Step, World
from steps_of_publishing import OTHER_DIMENSIONS, embed

KEY = "another model"


def _find(world: World) -> int | None:
    """Return the id of the other model; None where it is not registered."""
    return next((id_ for id_ in world.model.models if id_ != COLUMN), None)


@dataclass(frozen=True)
class AddModel(Step):
    """Another model is registered: active at once where there is no chunk, else beside the column."""

    weight = 8
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[AddModel]:
        return st.builds(cls)

    def run(self, world: World) -> None:
        models = world.model.models
        added = embedding_models.add_model(world.engine, KEY, OTHER_DIMENSIONS, index_type="none")
        assert added.is_new == (_find(world) is None)
        if added.is_new:
            is_first = not models and not world.corpus.chunks
            if not models and not is_first:
                models[COLUMN] = "active"
            models[added.id] = "active" if is_first else "building"
            assert added.state == models[added.id]
        world.did(self)


@dataclass(frozen=True)
class Backfill(Step):
    """The chunks that wait for the other model are embedded by a worker."""

    weight = 14
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Backfill]:
        return st.builds(cls)

    def needs(self, world: World) -> AddModel | None:
        return AddModel() if _find(world) is None else None

    def run(self, world: World) -> None:
        model = _find(world)
        assert model is not None
        embedding_models.enqueue_backfill(world.engine, KEY)
        sessions = sessionmaker(world.engine)
        while True:
            with world.engine.begin() as connection:
                claimed = jobs.claim(connection, "a worker", [JOB_TYPE])
            if not claimed:
                break
            embedding_models.backfill_batch(sessions, claimed[0], lambda texts: embed(model, texts), page=3)
            with world.engine.begin() as connection:
                assert jobs.complete(connection, claimed[0])
        for id_, row in world.corpus.chunks.items():
            if row.is_current and model not in row.skipped:
                world.corpus.chunks[id_] = row._replace(embedded=row.embedded | {model})
        world.did(self)


@dataclass(frozen=True)
class SwitchModel(Step):
    """Another model is made the active one, or the one before is again."""

    how: str

    weight = 14
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[SwitchModel]:
        return st.builds(cls, st.sampled_from(["to the other", "to the column", "back"]))

    def needs(self, world: World) -> AddModel | None:
        return AddModel() if _find(world) is None else None

    def run(self, world: World) -> None:
        models = world.model.models
        other = _find(world)
        assert other is not None
        target = other if self.how == "to the other" else COLUMN
        if self.how == "back":
            target = next((id_ for id_, state in models.items() if state == "standby"), 0)
            if target == 0:
                with pytest.raises(ModelRefused):
                    embedding_models.rollback_model(world.engine)
                world.did(self, is_refused=True)
                return
            embedding_models.rollback_model(world.engine)
        elif target in models:
            key = _key(world, target)
            embedding_models.activate_model(world.engine, key, allow_missing=10**6, least_recall=0)
        else:
            return
        if models[target] != "active":
            for id_, state in models.items():
                models[id_] = "standby" if state == "active" else state
            models[target] = "active"
        world.did(self)


@dataclass(frozen=True)
class DropModel(Step):
    """The other model is dropped with its embeddings: refused while it is active."""

    weight = 9
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropModel]:
        return st.builds(cls)

    def needs(self, world: World) -> AddModel | None:
        return AddModel() if _find(world) is None else None

    def run(self, world: World) -> None:
        model = _find(world)
        assert model is not None
        if world.model.models[model] == "active":
            with pytest.raises(ModelRefused):
                embedding_models.drop_model(world.engine, KEY, allow_data_loss=True)
            world.did(self, is_refused=True)
            return
        embedding_models.drop_model(world.engine, KEY, allow_data_loss=True)
        del world.model.models[model]
        for id_, row in world.corpus.chunks.items():
            world.corpus.chunks[id_] = row._replace(
                embedded=row.embedded - {model}, skipped=row.skipped - {model}
            )
        world.did(self)


def _key(world: World, model: int) -> str:
    with world.engine.connect() as connection:
        found = connection.scalar(_KEY, {"id": model})
    assert isinstance(found, str)
    return found


STEPS: tuple[type[Step], ...] = (AddModel, Backfill, SwitchModel, DropModel)

_KEY = sa.text("SELECT key FROM rag_embedding_models WHERE id = :id")
