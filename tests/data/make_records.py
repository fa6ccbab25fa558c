"""Makes tests/data/records-REVISION.sqlite.gz: a database as a release with that schema left it.

Run it once for each new revision, before the next one: python tests/data/make_records.py 0002
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from pydantic import SecretStr

from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.transcript_codec import TRANSCRIPT
from whisper_api.types import Coverage, Segment, Transcript, Word

HERE = Path(__file__).resolve().parent
DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
OLD = Transcript(
    task="transcribe",
    language="ru",
    language_probability=0.9,
    duration=2.5,
    segments=(
        Segment(
            0, 0, 0.5, 2.0, " Обсуждали бюджет на совещании.", (50364, 1), 0.0, -0.25, 1.5, 0.01,
            "ru", (Word(" Обсуждали", 0.5, 1.0, 0.9),),
        ),
    ),
    model="bundled",
    coverage=Coverage(2.5, 1.5, 1.5, 0.0),
)  # fmt: skip
ROWS = [
    f"""INSERT INTO audio (digest, size, mime, container, codec, duration, created_at)
        VALUES ('{DIGEST}', 3, 'audio/wav', 'wav', 'pcm_s16le', 2.5, 1790000000.5)""",
    f"""INSERT INTO tasks (id, owner, status, created_at, finished_at, name, source, audio,
        history_id, options) VALUES ('task_old', '', 'completed', 1790000000.0, 1790000001.0,
        'old.wav', 'upload', '{DIGEST}', 'tr_old', '{{}}')""",
]
TRANSCRIPT_ROW = f"""INSERT INTO transcripts (id, owner, created_at, name, title, source, task_id,
    task, language, model, duration, audio, digest, preview, options, timings, text, words, content)
    VALUES ('tr_old', '', 1790000000.5, 'old.wav', 'Старое', 'task', 'task_old', 'transcribe',
    'ru', 'bundled', 2.5, '{DIGEST}', '{DIGEST}', 'Обсуждали бюджет на совещании.', '{{}}',
    '{{"processing_seconds": 0.5}}', 'Обсуждали бюджет на совещании.',
    'старое стар обсуждали обсужда бюджет на совещании совещан', :content)"""


def make(revision: str) -> Path:
    """The fixture of ``revision``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.sqlite"
        settings = Settings(data_dir=Path(folder), database_url=SecretStr(f"sqlite:///{path}"))
        database = Database(settings)
        database.migrate(revision)
        with database.transaction() as connection:
            for row in ROWS:
                connection.exec_driver_sql(row)
            connection.execute(sa.text(TRANSCRIPT_ROW), {"content": TRANSCRIPT.dump(OLD)})
        database.close()
        target = HERE / f"records-{revision}.sqlite.gz"
        target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return target


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(make(name))
