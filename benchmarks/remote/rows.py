"""Rows of Airflow's metadata database: deferred tasks, each in its own run, and their triggers.

Set ``AIRFLOW_HOME`` before the import of this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.timezone import utcnow
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import func, select, update

_DAG, _BUNDLE = "remote", "remote"


def make_runs(count: int) -> list[str]:
    """Create runs of a DAG with one task; return their ids."""
    with DAG(_DAG, schedule=None) as dag:
        EmptyOperator(task_id="job")
    data = DagSerialization.to_dict(dag)
    runs = [f"run_{number}" for number in range(count)]
    with create_session() as session:
        session.merge(DagBundleModel(name=_BUNDLE))
        session.flush()
        SerializedDAG.bulk_write_to_db(_BUNDLE, None, [dag], session=session)
        SerializedDagModel.write_dag(LazyDeserializedDAG(data=data), _BUNDLE, session=session)
        session.flush()
        made = DagSerialization.from_dict(data)
        for run in runs:
            made.create_dagrun(
                run_id=run,
                run_after=utcnow(),
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                session=session,
            )
    return runs


class Deferral:
    """Writes what a worker writes when a task defers, for many tasks in one transaction."""

    def __init__(self, runs: Sequence[str], triggers: Sequence[object]) -> None:
        self._runs = runs
        self._triggers = [Trigger.from_object(trigger) for trigger in triggers]

    def write(self) -> None:
        """Write the rows, so that the triggerer can take them."""
        with create_session() as session:
            session.add_all(self._triggers)
            session.flush()
            for run, trigger in zip(self._runs, self._triggers, strict=True):
                session.execute(
                    update(TaskInstance)
                    .where(TaskInstance.dag_id == _DAG, TaskInstance.run_id == run)
                    .values(
                        state=TaskInstanceState.DEFERRED,
                        trigger_id=trigger.id,
                        next_method="execute_complete",
                        next_kwargs={},
                    )
                )


def deferred() -> int:
    """Return how many tasks wait for their trigger."""
    with create_session() as session:
        states = select(func.count()).where(TaskInstance.state == TaskInstanceState.DEFERRED)
        return session.scalar(states) or 0
