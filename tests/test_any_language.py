"""What a reader sees is found by words: writings, invisible characters, compounds, scripts, configurations, length."""

# ruff: noqa: RUF001
from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import connect, made_database, make_database, make_engine
from publishing import publish_texts
from ragschema import hybrid_search, migrations
from servers import at_head, server_parameters

# One database for the module: every test rolls back.
database = pytest.fixture(scope="module")(make_database)


engine = pytest.fixture(scope="module")(make_engine)

# What a chunk holds, and what a reader types to find it.
FOUND = {
    "decomposed in the text": ("Cafe\u0301 Zu\u0308rich", "café"),
    "decomposed in the question": ("Café Zürich", "Zu\u0308rich"),
    "a decomposed syllable of Hangul": (unicodedata.normalize("NFD", "한국 이야기"), "한국"),
    "a ligature": ("the \ufb01nal of\ufb01ce", "final"),
    "a ligature of three": ("the o\ufb03ce", "office"),
    "full width": ("ＡＢＣ１２３ is full", "abc123"),
    "half width": ("ｶﾀｶﾅ", "カタカナ"),
    "a superscript": ("10 m² of room", "m2"),
    "a Roman numeral": ("Chapter Ⅳ", "iv"),
    "a soft hyphen": ("Donau\u00addampf\u00adschiff", "Donaudampfschiff"),
    "a soft hyphen in the question": ("Dampfschiff", "Dampf\u00adschiff"),
    "a zero-width space": ("data\u200bbase", "database"),
    "a zero-width non-joiner in German": ("Auf\u200clage", "Auflage"),
    "a word joiner": ("data\u2060base", "database"),
    "a byte order mark": ("\ufeffTitle of it", "title"),
    "a mark of direction": ("\u200eabc\u200f def", "abc"),
    "an embedded direction": ("\u202bשלום\u202c עולם", "שלום"),
    "an isolated direction": ("\u2067name\u2069 here", "name"),
    "a variation selector": ("葛\ufe00飾 heart\ufe0f", "heart"),
    "an ideographic variation": ("葛\U000e0100飾区", "葛飾区"),
    "tatweel": ("كـتـاب جديد", "كتاب"),
    "vowel points of Arabic": ("كِتَابٌ", "كتاب"),
    "vowel points of Hebrew": ("שָׁלוֹם", "שלום"),
    "a Persian word in two parts": ("می\u200cخواهم بروم", "خواهم"),
    "a Persian word in one": ("می\u200cخواهم بروم", "میخواهم"),
    "presentation forms": ("\ufefb \ufee3\ufeae\ufea3\ufe92\ufe8e", "مرحبا"),
    "vowel signs of Hindi": ("यह हिन्दी की किताब है", "किताब"),
    "vowel signs of Tamil": ("தமிழ் மொழி", "மொழி"),
    "vowel signs of Bengali": ("আমার সোনার বাংলা", "বাংলা"),
    "vowel signs of Telugu": ("తెలుగు భాష", "భాష"),
    "a danda behind a word": ("यह किताब।", "किताब"),
    "capitals of Greek": ("ΟΔΟΣ ΑΘΗΝΩΝ", "οδος"),
    "capitals of Cyrillic": ("МОСКВА", "москва"),
    "capitals of Armenian": ("ԵՐԵՎԱՆ", "երեւան".replace("եւ", "եվ")),
    "capitals of Vietnamese": ("ĐƯỜNG PHỐ", "đường"),
    "a sharp s": ("STRASSE", "Straße"),
    "a dotted capital I": ("İstanbul", "istanbul"),
    "typographic quotation marks": ("„Haus“ «дом» 「家屋」", "Haus"),
    "guillemets": ("«дом»", "дом"),
    "a dash without spaces": ("war—peace", "peace"),
    "an ellipsis": ("and so…then", "then"),
    "a typographic apostrophe": ("l\u2019heure", "l'heure"),
    "an apostrophe": ("l'heure bleue", "heure"),
    "Ukrainian": ("м\u2019яч", "м'яч"),
    "Ukrainian in one": ("м\u02bcяч", "мяч"),
    "Chinese": ("我们在北京大学学习计算机科学。", "计算机"),
    "one letter of Chinese": ("我喜欢猫和狗", "猫"),
    "Chinese beside Latin": ("使用PostgreSQL数据库", "PostgreSQL"),
    "Chinese behind Latin": ("使用PostgreSQL数据库", "数据库"),
    "Japanese": ("東京都に住んでいます", "東京"),
    "Katakana": ("関係データベースの設計", "データベース"),
    "Hiragana": ("ありがとうございます", "ありがとう"),
    "Thai": ("ฉันชอบกินข้าวผัดมาก", "ข้าวผัด"),
    "Lao": ("ຂ້ອຍຮັກປະເທດລາວ", "ປະເທດ"),
    "Khmer": ("ខ្ញុំស្រលាញ់ប្រទេសកម្ពុជា", "កម្ពុជា"),
    "Khmer with zero-width spaces": ("ប្រទេស\u200bកម្ពុជា", "ប្រទេសកម្ពុជា"),
    "Myanmar": ("မြန်မာနိုင်ငံ", "နိုင်ငံ"),
    "Korean, particle in the text": ("서울에서 만나요", "서울"),
    "Korean, particle in the question": ("서울 시청", "서울은"),
    "Korean, both": ("데이터베이스를 설계한다", "데이터베이스는"),
    "Korean, one syllable": ("물을 마신다", "물"),
    "Korean, one syllable asked with a particle": ("물 한 잔", "물이"),
    "Korean behind Latin": ("PostgreSQL에서는", "postgresql"),
    "a slash": ("Ubuntu/Debian", "debian"),
    "a slash, first part": ("Ubuntu/Debian", "ubuntu"),
    "no space behind a full stop": ("the end.Next sentence", "next"),
    "no space before it": ("the end.Next sentence", "end"),
    "a type": ("a List<String> of names", "string"),
    "a map": ("Map<String,List<Integer>>", "integer"),
    "a call": ("foo.bar(baz)", "baz"),
    "an assignment": ("key=value;rest", "rest"),
    "a snake": ("max_worker_processes", "worker"),
    "a snake whole": ("max_worker_processes", "max_worker_processes"),
    "a version": ("release v1.2.3 is out", "v1.2.3"),
    "a version without its letter": ("release v1.2.3 is out", "1.2.3"),
    "a hyphen": ("ask GPT-4 for it", "GPT-4"),
    "a hyphen left out": ("ask GPT-4 for it", "gpt4"),
    "a hyphen put in": ("ask GPT4 for it", "gpt-4"),
    "a space put in": ("ask GPT4 for it", "gpt 4"),
    "a space left out": ("ask GPT 4 for it", "gpt4"),
    "a part number": ("part AB-1234-X", "AB-1234-X"),
    "its middle": ("part AB-1234-X", "1234"),
    "its parts as one": ("part AB-1234-X", "ab1234x"),
    "a non-breaking hyphen": ("part AB\u20111234", "ab-1234"),
    "e-mail": ("send an email", "e-mail"),
    "a unit": ("it weighs 3kg", "3 kg"),
    "a unit asked": ("it weighs 3 kg", "3kg"),
    "a domain of an address": ("https://docs.example.org/guide/intro?page=2#top", "example"),
    "a path of an address": ("https://docs.example.org/guide/intro?page=2#top", "intro"),
    "a host": ("https://docs.example.org/guide", "docs.example.org"),
    "an address whole": ("see https://docs.example.org/guide", "https://docs.example.org/guide"),
    "a mail address": ("write to ada.lovelace@example.org", "lovelace"),
    "a mail address whole": ("write to ada.lovelace@example.org", "ada.lovelace@example.org"),
    "a file": (r"open C:\Users\ada\notes.txt", "notes"),
    "a date": ("on 2024-05-01", "2024-05-01"),
    "a time": ("at 12:30", "12:30"),
    "C++": ("written in C++", "c++"),
    "C#": ("written in C#.", "C#"),
    "a hash tag": ("#postgres", "postgres"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "question"), FOUND.values(), ids=FOUND)
def test_what_a_reader_sees_is_found(session: Session, content: str, question: str) -> None:
    publish_texts(session, "a", [content, "entirely other words"])
    found = [hit.content for hit in session.execute(hybrid_search(None, question))]
    assert found == [content]


@pytest.fixture(scope="module", params=server_parameters())
def elsewhere(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[psycopg.rows.TupleRow]]:
    """A database of another version, whose LC_CTYPE is C."""
    with at_head(request.param) as database, connect(database) as connection:
        yield connection


HAS = """
SELECT EXISTS (
  SELECT FROM rag_query_words('simple', %(question)s, 32) WHERE lexemes <@ rag_words('simple', %(content)s)
)
"""


def test_it_is_found_where_the_locale_is_c(elsewhere: psycopg.Connection[psycopg.rows.TupleRow]) -> None:
    missed = [
        name
        for name, (content, question) in FOUND.items()
        if elsewhere.execute(HAS, {"content": content, "question": question}).fetchone() != (True,)
    ]
    assert missed == []


def test_small_letters_where_the_locale_is_c_are_those_of_unicode(
    elsewhere: psycopg.Connection[psycopg.rows.TupleRow],
) -> None:
    for code in (*range(0xC0, 0x233), *range(0x386, 0x557), *range(0x1E00, 0x1EFF)):
        letter = chr(code)
        small = letter.lower()
        if letter in "ǄǅǇǈǊǋǱǲ" or len(small) > 1 or small == letter or code in RARE:
            continue  # ligatures, which NFKC takes apart
        assert elsewhere.execute("SELECT rag_small_letters(%s)", (letter,)).fetchone() == (small,), hex(code)


RARE = {
    *(
        0x181,
        *range(0x182, 0x1A0),
        *range(0x1A6, 0x1AF),
        *range(0x1B1, 0x1BD),
    ),  # African letters beside Latin
    *(0x1F6, 0x1F7, 0x220),
    *(0x37F, 0x3CF, *range(0x3D8, 0x400)),  # Coptic
    0x1E9E,  # a sharp s, which becomes two
}


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "WIN1252"])
def test_other_encodings_have_words(server: Mapping[str, str], encoding: str) -> None:
    with made_database(server, f"template0 ENCODING '{encoding}' LOCALE 'C'") as database:
        migrations.upgrade(database)
        with connect(database) as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            row = {"content": "Ubuntu/Debian GPT-4 v1.2.3", "question": "debian"}
            for row["question"] in ("debian", "gpt4", "1.2.3", "GPT-4"):
                assert connection.execute(HAS, row).fetchone() == (True,)
            if encoding in ("LATIN1", "WIN1252"):
                assert connection.execute(HAS, {"content": "«Café» Zoë", "question": "café"}).fetchone() == (
                    True,
                )
            if encoding == "EUC_JP":
                assert connection.execute(HAS, {"content": "東京 です", "question": "東京"}).fetchone() == (
                    True,
                )


def test_every_word_of_a_question_is_a_word_of_the_same_text(session: Session) -> None:
    """The two functions are twins."""
    statement = sa.text(
        "SELECT word FROM rag_query_words(:config, :text, 1000)"
        " GROUP BY word HAVING NOT bool_or(lexemes <@ rag_words(:config, :text))"
    )
    everything = [
        " ".join(content for content, _ in FOUND.values()),
        "x" * 3000 + " a.b" * 100,
        "९ 9a9a a9a9 1-a.2_3",
    ]
    for text in [*everything, *(each for pair in FOUND.values() for each in pair)]:
        for config in ("simple", "english", "german"):
            assert session.scalars(statement, {"config": config, "text": text}).all() == []


def test_a_default_search_finds_exact_words_whatever_the_configuration(session: Session) -> None:
    for config in ("english", "german", "russian", "simple", "arabic"):
        publish_texts(session, config, [f"the running horses of {config}"], text_config=config)
    for question in ("running", "horses", "the"):
        assert len(session.execute(hybrid_search(None, question)).all()) == 5
    assert session.execute(hybrid_search(None, "horse")).all() == []
    stemmed = session.execute(hybrid_search(None, "horse", text_configs=["simple", "english"])).all()
    assert [hit.article_id for hit in stemmed] == ["english"]


def test_a_word_that_is_found_in_two_ways_counts_once(session: Session) -> None:
    publish_texts(session, "stemmed", ["horses"], text_config="english")
    publish_texts(session, "exact", ["horses"])
    one, two = session.execute(hybrid_search(None, "horses", text_configs=["simple", "english"])).all()
    assert abs(one.text_score - two.text_score) < 1


def test_a_chunk_of_many_different_words_is_found_by_any(session: Session) -> None:
    words = [f"w{number:x}q-{number}" for number in range(150_000)]
    publish_texts(session, "long", [" ".join(words)], text_config="english")
    session.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
    for question in (words[0], words[-1], words[77_777]):
        assert [hit.article_id for hit in session.execute(hybrid_search(None, question))] == ["long"]
