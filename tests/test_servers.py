"""What services call runs on older servers too, not the newest alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import servers
from publishing import embed
from ragschema import jobs, migrations
from ragschema.database.settings import Database
from ragschema.embedding_models import activate_model, add_model, drop_model, index_model, rollback_model
from ragschema.publishing import activate_version, plan_version, prune_versions, publish, retire_document
from ragschema.queries import (
    chunk_history,
    hybrid_search,
    nearest_chunks,
    pending_embeddings,
    search_settings,
    version_chunks,
    version_diff,
)

SERVERS = servers.server_parameters()


@pytest.fixture(scope="module", params=SERVERS)
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    programs: Path = request.param
    with servers.at_head(programs) as database:
        yield database


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    engine = sa.create_engine(database.url())
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_versions_are_published_read_and_pruned(session: Session, database: Database) -> None:
    versions = []
    for contents in (["cats purr", "dogs bark"], ["cats purr", "dogs bark loudly"]):
        plan = plan_version(
            session,
            "noises",
            contents,
            source_hash=str(contents),
            chunker_version="1",
            embedder_version="1",
        )
        session.commit()
        versions.append(publish(session, plan, [embed(text) for text in plan.texts_to_embed]))
        session.commit()
    assert (versions[1].unchanged, versions[1].updated) == (1, 1)
    search_settings(session, ef_search=100)
    found = [hit.content for hit in session.execute(nearest_chunks(embed("cats purr"), limit=5))]
    assert sorted(found) == ["cats purr", "dogs bark loudly"]
    assert found[0] == "cats purr"
    filtered = nearest_chunks(embed("cats purr"), article_ids=["noises"], max_distance=0.5)
    assert [hit.content for hit in session.execute(filtered)] == ["cats purr"]
    both = session.execute(hybrid_search(embed("cats purr"), "loudly?")).all()
    assert {hit.content for hit in both} == {"cats purr", "dogs bark loudly"}
    assert len(session.execute(version_chunks(versions[0].id)).all()) == 2
    changes = [row.change for row in session.execute(version_diff(versions[0].id, versions[1].id))]
    assert changes == ["unchanged", "updated"]
    history = [row.event_type for row in session.execute(chunk_history("noises"))]
    assert history == ["added", "added", "unchanged", "updated"]
    assert session.execute(pending_embeddings()).all() == []

    activate_version(session, "noises", 1)
    session.commit()
    assert migrations.verify_data(database) == []
    retire_document(session, "noises")
    session.commit()
    assert session.execute(nearest_chunks(embed("cats purr"))).all() == []
    session.commit()
    assert prune_versions(session, keep=1).versions == 2
    assert migrations.verify_data(database) == []


def test_jobs_are_claimed_failed_and_completed(session: Session) -> None:
    jobs.enqueue(session, "embed", {"n": 1}, dedupe_key="k")
    jobs.enqueue(session, "embed", {"n": 2}, dedupe_key="k")
    session.commit()
    (job,) = jobs.claim(session, "worker", ["embed"], limit=5)
    session.commit()
    assert job.payload == {"n": 2}
    assert jobs.heartbeat(session, job, progress=[1])
    assert jobs.fail(session, job, "no", permanent=True) == "failed"
    assert jobs.retry(session, job.id)
    session.commit()
    (again,) = jobs.claim(session, "worker", limit=5)
    assert not jobs.complete(session, job)
    assert jobs.complete(session, again)
    session.commit()
    session.execute(sa.text("INSERT INTO rag_jobs (job_type, payload) VALUES ('by hand', '{}')"))
    session.execute(sa.text("UPDATE rag_jobs SET status = 'processing' WHERE status = 'new'"))
    assert [(s.job_type, s.processing) for s in jobs.stats(session) if s.processing] == [("by hand", 1)]
    session.commit()


def test_a_model_is_registered_and_its_partition_is_as_expected_on_each_server(database: Database) -> None:
    """What PostgreSQL prints of checks and indexes is compared with what the registry says, whatever prints it."""
    for index_type, distance in (("halfvec", "cosine"), ("vector", "inner_product"), ("bit", "cosine")):
        add_model(database, index_type, 3, index_type=index_type, distance=distance)  # type: ignore[arg-type]
        index_model(database, index_type)
        activate_model(database, index_type)
    drift = migrations.verify(database)
    assert drift.is_clean, str(drift)
    rollback_model(database)
    drop_model(database, "bit", allow_data_loss=True)
    assert migrations.verify(database).is_clean
