"""Tables: the way in which each SELECT moves and the reason, or the refusal, word for word.

Only data: `test_ways.py` asks a lab and compares. `THEIRS` stands where a message goes on with words of DuckDB or of
the tokenizer, which change with their versions.
"""

from __future__ import annotations

from dataclasses import dataclass

from cqrs_lab import ReadModel

THEIRS = "«their words»"
MERGES = "every column is made of aggregates whose halves combine"
FUSES = "its rows are those of {}, whose aggregates they keep, with more looked up"
CHANGING = "it reads the rows of {}, which change; events only come"


@dataclass(frozen=True)
class Moves:
    """A SELECT that is served as a projection: what explain() says of it.

    Attributes:
        way: "merge", "touched keys" or "recompute all".
        reasons: why; for "recompute all" why it does not merge, and why its keys cannot be told.
    """

    way: str
    reasons: tuple[str, ...]
    sql: str
    key: str | tuple[str, ...] = "order_id"

    @property
    def reason(self) -> str:
        """The whole reason, as explain() says it."""
        return "; and ".join(self.reasons)


@dataclass(frozen=True)
class Refused:
    """A SELECT that is refused: the reasons of its declaration, or the one message of the parser or of a lab."""

    reasons: tuple[str, ...]
    sql: str
    key: str | tuple[str, ...] = "order_id"


def merges(sql: str, key: str | tuple[str, ...] = "order_id", reason: str = MERGES) -> Moves:
    """Return a row of what merges."""
    return Moves("merge", (reason,), sql, key)


def touches(reason: str, sql: str, key: str | tuple[str, ...] = "order_id") -> Moves:
    """Return a row of what is rebuilt for the keys that a change can reach."""
    return Moves("touched keys", (reason,), sql, key)


def recomputes(reason: str, sql: str, key: str | tuple[str, ...] = "order_id") -> Moves:
    """Return a row of what is rebuilt whole."""
    return Moves("recompute all", (reason,), sql, key)


def refused(reason: str, sql: str, key: str | tuple[str, ...] = "order_id") -> Refused:
    """Return a row of what is refused for one reason."""
    return Refused((reason,), sql, key)


# -- ways --------------------------------------------------------------------------------------------------------------

SHOP = {
    "order_facts": ("merge", MERGES),
    "customer_contacts": ("merge", MERGES),
    "order_summary": ("merge", FUSES.format("order_facts")),
    "order_list": ("touched keys", CHANGING.format("order_summary")),
    "open_orders": ("touched keys", CHANGING.format("order_summary")),
    "customer_value": ("touched keys", CHANGING.format("order_summary")),
    "daily_orders": ("merge", MERGES),
    "daily_sales": ("touched keys", CHANGING.format("order_facts")),
    "product_demand": ("merge", MERGES),
    "delivery_times": ("touched keys", CHANGING.format("order_facts")),
}
"""Each read model of the shop, served as a projection."""

AS = {
    "view": ("view", "a view runs the SELECT at every read"),
    "materialized": ("refresh", "a materialized table is built whole at every refresh"),
    "projection": ("merge", MERGES),
}
"""One read model that merges, in each of the ways to serve it."""

# Read models that the rows below are built on, beside those of the shop.
LAYERS = (
    ReadModel("parts", ("order_id", "type"), "SELECT order_id, type, count(*) AS n FROM order_events GROUP BY ALL"),
    ReadModel("units", "order_id", "SELECT order_id, median(total) AS middle FROM order_events GROUP BY order_id"),
)

_FACTS = "FROM order_facts AS o LEFT JOIN customer_contacts AS c"
_SET = "it has UNION, EXCEPT or INTERSECT; make each of their SELECTs a read model of its own"
_TOGETHER = "it reads a SELECT that puts rows together or looks at several"
_DIFFER = "{!r} of a SELECT inside it may differ in rows of one key; make that SELECT a read model"
_WINDOW = "it has a window that looks at rows of other keys; one with PARTITION BY its key would not"
_TABLES = "it reads more than one table"

WAYS = (
    # What the README, the notebooks and their solutions declare.
    merges(
        "SELECT customer_id, sum(total) AS spent FROM order_events WHERE type = 'OrderPlaced' GROUP BY customer_id",
        "customer_id",
    ),
    merges(
        "SELECT line.product_id AS product_id, sum(line.quantity)::BIGINT AS units "
        "FROM (SELECT unnest(lines) AS line FROM order_events) GROUP BY ALL",
        "product_id",
    ),
    merges(
        "SELECT one.product_id AS product_id, other.product_id AS with_product, count(*) AS times "
        "FROM order_events, unnest(lines) AS a(one), unnest(lines) AS b(other) "
        "WHERE type = 'OrderPlaced' AND one.product_id < other.product_id GROUP BY ALL",
        ("product_id", "with_product"),
    ),
    recomputes(
        _WINDOW,
        "SELECT product_id, units, rank() OVER (ORDER BY units DESC) AS place FROM product_demand",
        "product_id",
    ),
    touches(
        "arg_max() is not by position alone",
        "SELECT customer_id, arg_max(order_id, (total, position)) AS order_id, max(total) AS total "
        "FROM order_events WHERE type = 'OrderPlaced' GROUP BY customer_id",
        "customer_id",
    ),
    touches(
        CHANGING.format("customer_value"),
        "SELECT least(orders, 5) AS times, count(*) AS customers FROM customer_value GROUP BY times",
        "times",
    ),
    merges(
        "SELECT order_id, coalesce(sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END), 0)"
        "::DECIMAL(18, 2) AS paid FROM order_events GROUP BY order_id"
    ),
    touches(
        _TABLES,
        "SELECT cancelled.reason, count(*) AS orders, sum(facts.total)::DECIMAL(18, 2) AS value "
        "FROM order_events AS cancelled JOIN order_facts AS facts ON facts.order_id = cancelled.order_id "
        "WHERE cancelled.type = 'OrderCancelled' GROUP BY cancelled.reason",
        "reason",
    ),
    touches(
        "arg_max() is not by position alone",
        "SELECT customer_id, arg_max(email, (occurred_at, position)) AS email FROM customer_events GROUP BY ALL",
        "customer_id",
    ),
    merges(
        "SELECT product_id, sum(CASE type WHEN 'StockReserved' THEN -quantity ELSE quantity END)::BIGINT AS free "
        "FROM product_events WHERE type <> 'PriceChanged' GROUP BY product_id",
        "product_id",
    ),
    merges(
        "SELECT order_id, count(*) AS events, max(CAST(tracking_number AS BIGINT)) AS parcel "
        "FROM order_events GROUP BY order_id"
    ),
    # Other shapes of what merges: a group by number or by expression, filters, lists, no aggregate, no group.
    merges("SELECT order_id, count(*) FILTER (type = 'OrderPaid') AS n FROM order_events GROUP BY 1"),
    merges("SELECT order_id, list_transform(max(lines), lambda l: l.quantity) AS q FROM order_events GROUP BY ALL"),
    merges(
        "SELECT date_trunc('day', occurred_at) AS day, count(*) AS n FROM order_events "
        "GROUP BY date_trunc('day', occurred_at)",
        "day",
    ),
    merges("SELECT order_id FROM order_events GROUP BY order_id -- one row for each"),
    merges("SELECT 1 AS one, count(*) AS n FROM order_events", "one"),
    merges("SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id", "ORDER_ID"),
    # Rows of one that merges, with more columns looked up.
    merges(
        f"SELECT o.order_id, o.status, c.customer_name {_FACTS} USING (customer_id)",
        reason=FUSES.format("order_facts"),
    ),
    merges(
        f"SELECT o.order_id, c.customer_name, p.n {_FACTS} USING (customer_id) "
        "LEFT JOIN parts AS p ON p.order_id = o.order_id AND p.type = o.status",
        reason=FUSES.format("order_facts"),
    ),
    # Why something does not merge, and which keys are touched all the same.
    touches("it has DISTINCT or ORDER BY", "SELECT DISTINCT order_id FROM order_events"),
    touches("it has DISTINCT or ORDER BY", "SELECT order_id FROM order_events GROUP BY order_id ORDER BY order_id"),
    touches(
        "it has HAVING or QUALIFY, which need the whole history of a row",
        "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id HAVING count(*) > 1",
    ),
    touches(_TABLES, "SELECT e.order_id, o.status FROM order_events AS e JOIN order_facts AS o USING (order_id)"),
    touches(_TABLES, "SELECT e.order_id, o.status FROM order_events AS e CROSS JOIN order_facts AS o"),
    touches(_TABLES, "SELECT one.order_id, other.type FROM order_events AS one, order_events AS other"),
    touches(CHANGING.format("order_facts"), "SELECT order_id, status FROM order_facts"),
    touches(CHANGING.format("units"), "SELECT order_id, middle FROM units"),
    touches("it is not grouped by its key", "SELECT order_id, type FROM order_events"),
    touches(
        "its column 'type' is neither part of the key nor an aggregate",
        "SELECT order_id, type, count(*) AS n FROM order_events GROUP BY ALL",
    ),
    touches(
        "count(DISTINCT …) needs all the values that a row has seen",
        "SELECT order_id, count(DISTINCT type) AS kinds FROM order_events GROUP BY order_id",
    ),
    touches(
        "list() has an ORDER BY",
        "SELECT order_id, list(type ORDER BY position) AS types FROM order_events GROUP BY order_id",
    ),
    touches(
        "median() of two halves does not follow from the median() of each",
        "SELECT order_id, median(total) AS middle FROM order_events GROUP BY order_id",
    ),
    touches(
        "arg_max() is not by position alone",
        "SELECT order_id, arg_max(total, position, 2) AS latest FROM order_events GROUP BY order_id",
    ),
    touches(
        "max() has more than one argument",
        "SELECT order_id, max(total, 2) AS most FROM order_events GROUP BY order_id",
    ),
    touches(
        "'e' could not be followed to its source",
        "SELECT order_id, max(e) AS n FROM order_events AS e GROUP BY order_id",
    ),
    touches(
        "'version' stands outside an aggregate",
        "SELECT order_id, max(total) + version AS n FROM order_events GROUP BY order_id, version",
    ),
    touches(
        "it is grouped by more than its key",
        "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id, type",
    ),
    touches(
        "it is grouped by less than its key",
        "SELECT order_id, 1 AS one, count(*) AS n FROM order_events GROUP BY order_id",
        ("order_id", "one"),
    ),
    # However the author writes it: what runs is DuckDB's own reading of it.
    merges("FROM order_events SELECT order_id, count(*) AS n GROUP BY order_id"),
    merges("SELECT order_id, count(*) AS n, FROM order_events GROUP BY order_id"),
    merges("SELECT order_id, n: count(*) FROM order_events GROUP BY order_id"),
    merges("SELECT order_id, max({'select': total}).select + 1 AS n FROM order_events GROUP BY order_id"),
    merges("SELECT order_id, max(MAP {#1: 2}) AS n FROM order_events GROUP BY order_id"),
    merges("SELECT order_id, count(*) IS DISTINCT FROM 1 AS n FROM order_events GROUP BY order_id"),
    touches(
        "min() compares texts under a collation",
        "SELECT order_id, min(type COLLATE NOCASE) AS first FROM order_events GROUP BY order_id",
    ),
    # Windows move by the parts of the key that stand in every PARTITION BY.
    touches(
        "it has a window",
        "SELECT order_id, version, lag(type) OVER (PARTITION BY order_id ORDER BY position) AS last FROM order_events",
        ("order_id", "version"),
    ),
    touches(
        "it has HAVING or QUALIFY, which need the whole history of a row",
        "SELECT order_id, type FROM order_events QUALIFY rank() OVER (PARTITION BY order_id ORDER BY position) = 1",
    ),
    # Why keys cannot be told.
    recomputes(_SET, "SELECT order_id FROM order_events UNION SELECT order_id FROM order_facts"),
    recomputes(
        _SET, "SELECT order_id FROM (SELECT order_id FROM order_events EXCEPT SELECT order_id FROM order_facts)"
    ),
    recomputes(
        "it has a recursive WITH",
        "WITH RECURSIVE up AS (SELECT order_id, 1 AS n FROM order_facts UNION ALL SELECT order_id, n + 1 FROM up "
        "WHERE n < 2) SELECT order_id, max(n) AS n FROM up GROUP BY ALL",
    ),
    recomputes(_WINDOW, "SELECT order_id, count(*) OVER () AS n FROM order_events"),
    recomputes(
        "every event of order_events reaches all of its rows, through a SELECT that gives one value",
        "SELECT order_id, count(*) AS n, (SELECT max(position) FROM order_events) AS last "
        "FROM order_events GROUP BY order_id",
    ),
    recomputes(
        "of its key 'order_id', " + _DIFFER.format("order_id"),
        "WITH first AS (SELECT customer_id, min(order_id) AS order_id FROM order_events GROUP BY ALL) "
        "SELECT order_id, count(*) AS n FROM first GROUP BY ALL",
    ),
    recomputes(
        "of its key 'last', it asks a subquery",
        "SELECT order_id, (SELECT max(total) FROM order_facts AS f WHERE f.order_id = o.order_id) AS last "
        "FROM order_facts AS o",
        "last",
    ),
    recomputes(
        "it has a subquery in the condition of a join; make that SELECT a read model of its own",
        "SELECT e.order_id, o.total FROM order_events AS e JOIN order_facts AS o ON o.order_id = e.order_id "
        "AND o.total > (SELECT min(total) FROM order_facts)",
    ),
    recomputes(
        "it has a WITH that nothing reads; leave that out",
        "WITH big AS (SELECT order_id FROM order_facts) SELECT order_id FROM order_events",
    ),
    recomputes(
        "it has a * with changes; name its columns",
        "SELECT order_id, total FROM (SELECT * REPLACE (total + 1 AS total) FROM order_facts)",
    ),
    recomputes(
        "it renames the columns of a SELECT *",
        "SELECT id AS order_id FROM (SELECT * FROM order_facts) AS o(id)",
    ),
    recomputes(
        "its WITHs lead to too many places, or to themselves; make them read models of their own",
        "WITH a AS (SELECT o.order_id FROM order_facts AS o JOIN order_facts AS p USING (order_id)), "
        + ", ".join(
            f"{name} AS (SELECT x.order_id FROM {before} AS x JOIN {before} AS y USING (order_id))"
            for before, name in zip("abcde", "bcdef", strict=True)
        )
        + " SELECT order_id, count(*) AS n FROM f GROUP BY ALL",
    ),
    # A SELECT inside is followed to what it reads.
    merges(
        "WITH placed AS (SELECT * FROM order_events WHERE type = 'OrderPlaced') "
        "SELECT customer_id, count(*) AS n, arg_max(order_id, position) AS last FROM placed GROUP BY ALL",
        "customer_id",
    ),
    merges("SELECT order_id, sum(n) AS n FROM (SELECT order_id, version + 1 AS n FROM order_events) GROUP BY order_id"),
    touches(
        CHANGING.format("order_facts"),
        "WITH big AS (SELECT order_id, total FROM order_facts WHERE total > 9) SELECT order_id FROM big",
    ),
    touches("it asks a subquery", "SELECT order_id, count(*) + (SELECT 1) AS n FROM order_events GROUP BY order_id"),
    touches(
        _TOGETHER,
        "SELECT order_id, max(n) AS n FROM (SELECT order_id, row_number() OVER (PARTITION BY order_id ORDER BY "
        "position) AS n FROM order_events) GROUP BY ALL",
    ),
    touches(
        _TABLES,
        "SELECT order_id, count(*) AS n FROM order_events AS e WHERE EXISTS "
        "(SELECT 1 FROM order_facts AS f WHERE f.order_id = e.order_id AND f.total > 9) GROUP BY ALL",
    ),
    touches(
        _TABLES,
        "SELECT order_id, count(*) AS n FROM order_events WHERE customer_id IN "
        "(SELECT customer_id FROM customer_contacts) GROUP BY ALL",
    ),
    touches(
        _TABLES,
        "WITH paid AS (SELECT order_id, sum(amount) AS paid FROM payment_events GROUP BY ALL) "
        "SELECT o.order_id, max(p.paid) AS paid FROM order_events AS o LEFT JOIN paid AS p USING (order_id) "
        "GROUP BY ALL",
    ),
    recomputes(
        "it has grouping sets",
        "SELECT order_id, count(*) AS n FROM order_events GROUP BY GROUPING SETS ((order_id), (order_id, type))",
    ),
    recomputes("it reads no events", "SELECT n FROM unnest([1, 2]) AS of(n)", "n"),
    recomputes("it reads no events", "SELECT 1 AS one", "one"),
    recomputes("it reads a table function", "SELECT n FROM range(3) AS of(n)", "n"),
    recomputes(
        "it reads a pivot",
        "SELECT order_id, version FROM order_facts UNPIVOT (amount FOR kind IN (total, paid))",
    ),
    recomputes(
        "its key 'last' is an aggregate",
        "SELECT max(position) AS last, count(*) AS n FROM order_events GROUP BY order_id",
        "last",
    ),
    recomputes(
        "its key comes from 'o', which rows may lack",
        "SELECT o.order_id, e.type FROM order_events AS e LEFT JOIN order_facts AS o ON o.order_id = e.order_id",
    ),
    recomputes(
        "it renames the columns of a source",
        "SELECT o.order_id, o.kind FROM order_events AS o(order_id, kind)",
    ),
    *(
        recomputes(
            f"it has {told} join; write it as an inner or a left join",
            f"SELECT e.order_id, 1 AS one FROM order_events AS e {join}",
        )
        for told, join in (
            ("a right", "RIGHT JOIN order_facts AS o USING (order_id)"),
            ("a full", "FULL JOIN order_facts AS o USING (order_id)"),
            ("a semi", "SEMI JOIN order_facts AS o USING (order_id)"),
            ("an anti", "ANTI JOIN order_facts AS o USING (order_id)"),
            ("a natural right", "NATURAL RIGHT JOIN order_facts AS o"),
            ("a positional inner", "POSITIONAL JOIN order_facts AS o"),
            ("an asof inner", "ASOF JOIN order_facts AS o ON o.order_id = e.order_id AND o.version <= e.version"),
            ("an asof left", "ASOF LEFT JOIN order_facts AS o ON o.order_id = e.order_id AND o.version <= e.version"),
        )
    ),
    recomputes(
        "it has a natural join, which new columns change; say USING",
        "SELECT order_id, status FROM order_events NATURAL JOIN order_facts",
    ),
    touches(
        "it reads a list on the right of a left join",
        "SELECT e.order_id, l.product_id FROM order_events AS e LEFT JOIN unnest(e.lines) AS of(l) ON true",
        ("order_id", "product_id"),
    ),
)

# Why a read model over one that merges keeps no aggregates of it: explain() says why it does not merge by itself, and
# never this. Asked of the analysis.
NOT_FUSED = (
    touches(
        "it leaves rows out or puts several together",
        f"SELECT o.order_id, c.customer_name {_FACTS} USING (customer_id) WHERE c.customer_name IS NULL",
    ),
    touches(
        "it puts several rows together",
        f"SELECT o.order_id, count(*) AS n {_FACTS} USING (customer_id) GROUP BY ALL",
    ),
    touches(
        "it is more than one SELECT",
        f"SELECT o.order_id, c.customer_name {_FACTS.replace('customer_contacts', '(FROM customer_contacts)')} "
        "USING (customer_id)",
    ),
    touches(
        "it joins what it does not look up",
        "SELECT o.order_id, c.customer_name FROM order_facts AS o JOIN customer_contacts AS c USING (customer_id)",
    ),
    touches(
        "it looks at several rows or makes several of one",
        f"SELECT o.order_id, n {_FACTS} USING (customer_id), unnest([1, 2]) AS of(n)",
        ("order_id", "n"),
    ),
    touches(
        "it may find several rows of 'p' for one of its own",
        "SELECT o.order_id, p.n FROM order_facts AS o LEFT JOIN parts AS p USING (order_id)",
    ),
    touches(
        "its key is not that of order_facts",
        f"SELECT upper(o.order_id) AS order_id, c.customer_name {_FACTS} USING (customer_id)",
    ),
)

# -- refusals ----------------------------------------------------------------------------------------------------------

_STAR = "it selects *; name its columns, so that a new field of an event does not change it"
_LIMIT = "it has a LIMIT, which depends on the order of rows; put the LIMIT into the question"
_PICKS = "{0}() picks among rows without a total order; say {0}({1} ORDER BY {2}position)"
_TOTAL = "{}() OVER (…) picks among rows without a total order; say ORDER BY {}"
_NO_KEY = "the key 'order_id' is not among its columns"

DECLARED = (
    Refused((_STAR, _NO_KEY), "SELECT * FROM order_events"),
    Refused((_STAR, _NO_KEY), "SELECT COLUMNS('order_id') FROM order_events"),
    Refused((_STAR, _NO_KEY, "it reads a description of the catalogue, which is not the log"), "DESCRIBE order_events"),
    refused(
        "column 2 has no name; give it one with AS",
        "SELECT order_id, count(*) FROM order_events GROUP BY 1",
    ),
    refused("two columns are called 'A'", "SELECT order_id, total AS a, freight AS A FROM order_events"),
    refused(
        "the column '_1' starts with an underscore; those are kept for the projection's own state",
        "SELECT order_id, total AS _1 FROM order_events",
    ),
    refused(_NO_KEY, "SELECT type, count(*) AS n FROM order_events GROUP BY 1"),
    refused("the key 'day' is not among its columns", "SELECT order_id FROM order_events", ("order_id", "day")),
    Refused(
        ("column 1 has no name; give it one with AS", "two columns are called 'order_id'", _LIMIT),
        "SELECT count(*), order_id, type AS order_id FROM order_events GROUP BY ALL LIMIT 3",
    ),
    refused(
        "it reads somewhere.order_events; name tables of events and read models alone",
        "SELECT order_id FROM somewhere.order_events",
    ),
    refused(
        "it reads a table AT a version; lab.as_of() asks about the past",
        "SELECT order_id FROM order_events AT (VERSION => 1)",
    ),
    refused("it reads read_csv(), which is not the log", "SELECT order_id FROM read_csv('orders.csv')"),
    refused(
        "parquet_scan() is not known to be a function of the events: this version of cqrs_lab has no judgement of it. "
        "Write it with functions that it knows, or upgrade cqrs_lab",
        "SELECT order_id, parquet_scan('orders.parquet') AS n FROM order_events",
    ),
    refused(_LIMIT, "SELECT order_id FROM order_events LIMIT 5"),
    refused(_LIMIT, "SELECT order_id FROM order_events LIMIT 5%"),
    refused(
        "it has DISTINCT ON, which depends on the order of rows; use arg_max(…, position)",
        "SELECT DISTINCT ON (order_id) order_id, type FROM order_events",
    ),
    refused(
        "it samples rows, so it would answer differently every time",
        "SELECT order_id FROM order_events USING SAMPLE 10",
    ),
    refused(
        "WITH order_events hides a table of events; choose another name",
        "WITH order_events AS (SELECT 1 AS order_id) SELECT order_id FROM order_events",
    ),
    *(
        refused(_PICKS.format(name, of, by), f"SELECT order_id, {name}({rest}) AS t FROM order_events GROUP BY 1")
        for name, rest, of, by in (
            ("first", "total", "total", ""), ("last", "total ORDER BY occurred_at", "total", "occurred_at, "),
            ("any_value", "total", "total", ""), ("list", "total", "total", ""),
            ("string_agg", "type, ','", "type", ""),
        )
    ),
    refused(
        "arg_max() picks among rows without a total order; say arg_max(order_id, (total, position))",
        "SELECT customer_id, arg_max(order_id, total) AS order_id FROM order_events GROUP BY customer_id",
    ),
    refused(
        "arg_max() picks among rows without a total order; say arg_max(l.q, (o.position, l.position))",
        "SELECT o.order_id, arg_max(l.q, o.position) AS t FROM order_events o JOIN order_events l USING (order_id) "
        "GROUP BY 1",
    ),
)  # fmt: skip

_NOT = "{} is not a function of the events: {}"
_CLOCK = "it asks the clock; use occurred_at or recorded_at"
_SESSION = "it asks the session or the catalogue, not the log"
_KEYWORD = (
    "{0} is not a function of the events: {1}. A column that is called {0} has to be named with its table, as in "
    "order_events.{0}"
)

# Calls that are not functions of the events: a row for each kind of sentence, and for each reason in the list of
# functions. Which functions are refused is tested beside that list.
FUNCTIONS = (
    *(
        refused(_NOT.format(f"{call.split('(')[0]}()", reason), f"SELECT order_id, {call} AS n FROM order_events")
        for call, reason in (
            ("now()", _CLOCK),
            ("ago(INTERVAL 1 DAY)", _CLOCK),
            ("age(occurred_at)", _CLOCK),
            ("random()", "it answers differently every time"),
            ("version()", _SESSION),
            ("pg_typeof(total)", _SESSION),
            ("nextval('numbers')", "it does something instead of giving an answer"),
            ("getenv('HOME')", "it reads something else than the events"),
            ("json_serialize_sql('SELECT 1')", "it is there for DuckDB's own use"),
            (
                "json_group_array(total)",
                "it lists rows in the order in which they arrive; use list(… ORDER BY position)",
            ),
            (
                "wavg(total, freight)",
                "it hides a sum of inexact numbers; write sum(x * w) / sum(w) over DECIMAL values",
            ),
            ("regexp_split_to_table(type, 'e')", "it hides an unnest; write unnest(…) in FROM"),
            ("hash(total)", "its answer may change with the next version of DuckDB; use md5() or sha256()"),
        )
    ),
    *(
        refused(_KEYWORD.format(word.lower(), reason), f"SELECT order_id, {word} AS n FROM order_events")
        for word, reason in (("current_date", _CLOCK), ("CURRENT_TIMESTAMP", _CLOCK), ("current_schema", _SESSION))
    ),
    *(
        refused(
            f"{name}() may depend on the order in which rows arrive; {instead}",
            f"SELECT order_id, {name}(total) AS n FROM order_events GROUP BY 1",
        )
        for name, instead in (
            ("kurtosis", "use an aggregate that does not"),
            ("mode", "count each value in a read model of its own and take arg_max(value, (n, value)) of that"),
        )
    ),
    refused("DuckDB has no function nonsense()", "SELECT order_id, nonsense(total) AS n FROM order_events"),
    refused(
        "list_aggregate() needs the name of an aggregate that draws no sample, written as a text",
        "SELECT order_id, list_aggregate([total, freight], type) AS n FROM order_events",
    ),
    refused(
        "nonsense() OVER (…) is not known to be a function of the events",
        "SELECT order_id, nonsense(total) OVER (ORDER BY position) AS n FROM order_events",
    ),
    *(
        refused(
            _TOTAL.format(name, "total, position"), f"SELECT order_id, {name}({of}) OVER (ORDER BY {by}) AS n {end}"
        )
        for name, of, by, end in (
            ("row_number", "", "total", "FROM order_events"),
            ("sum", "freight", "total ROWS UNBOUNDED PRECEDING", "FROM order_events"),
            ("lag", "type", "total", "FROM order_events"),
        )
    ),
    refused(
        _TOTAL.format("ntile", "e.total, e.position, o.position"),
        "SELECT e.order_id, ntile(4) OVER (ORDER BY e.total) AS n FROM order_events AS e, order_events AS o",
    ),
    refused(
        "lag() OVER (…) picks among rows without a total order, and several of them share what there is to order by; "
        "number the rows of a list WITH ORDINALITY, or pick in a read model of its own before they are multiplied",
        "SELECT order_id, lag(l) OVER (ORDER BY position) AS n FROM order_events, unnest(lines) AS of(l)",
    ),
    refused(
        "list(DISTINCT …) has to be ordered by what it lists",
        "SELECT order_id, list(DISTINCT type ORDER BY position) AS n FROM order_events GROUP BY order_id",
    ),
    refused(
        "ASOF JOIN picks among rows that have the same b.occurred_at; compare b.position in its inequality",
        "SELECT a.order_id, b.type FROM order_events AS a ASOF JOIN order_events AS b "
        "ON a.order_id = b.order_id AND b.occurred_at < a.occurred_at",
    ),
    refused(
        "ASOF JOIN picks among the rows of a join; make the right side a read model of its own",
        "SELECT a.order_id, b.type FROM order_events AS a ASOF JOIN "
        "(order_events AS b JOIN order_events AS c USING (order_id)) ON b.position < a.position",
    ),
    refused(
        "type COLLATE NOCASE puts texts that differ into one group, and which of them is shown depends on the order of "
        "rows; group by lower(…)",
        "SELECT order_id, type COLLATE NOCASE AS kind, count(*) AS n FROM order_events GROUP BY ALL",
    ),
    refused(
        "it reads a description of the catalogue, which is not the log",
        "SELECT order_id FROM (SUMMARIZE order_events)",
    ),
)

# What is no SELECT; said when it is declared, too.
NOT_SELECTS = (
    refused(f"read model 'mine': {THEIRS}\nIn: SELECT order_id, FROM WHERE", "SELECT order_id, FROM WHERE"),
    refused(
        "read model 'mine': Only SELECT statements can be serialized to json!\nIn: DELETE FROM order_events",
        "DELETE FROM order_events",
    ),
    refused(
        "read model 'mine': Only SELECT statements can be serialized to json!\n"
        "In: SELECT order_id FROM order_events; DROP TABLE streams",
        "SELECT order_id FROM order_events; DROP TABLE streams",
    ),
    refused(
        "read model 'mine': a SELECT was expected, and nothing beside it: SELECT order_id FROM order_events; SELECT 1",
        "SELECT order_id FROM order_events; SELECT 1",
    ),
)

_SOURCES = (
    "order_events, customer_events, product_events, payment_events, fulfilment_events, "
    "order_facts, customer_contacts, order_summary, order_list, open_orders, customer_value, daily_orders, "
    "daily_sales, product_demand, delivery_times"
)
_UNKNOWN = (
    "read model 'mine' reads {!r}, which is neither a table of events nor a read model declared before it; "
    f"there are {_SOURCES}"
)
_ADDS = (
    "read model 'mine' was refused: it adds up {} values in {}(), which gives another result with every run; cast them "
    "to DECIMAL"
)

# What can be declared, and is refused by the lab of the shop.
UNBOUND = (
    refused("read model 'mine' reads itself", "SELECT order_id FROM mine"),
    refused(
        "read model 'mine' was refused: AT TIME ZONE 'Europe/Amsterdam' takes a time to be local there, while all "
        "times here are in UTC; for the local time say AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Amsterdam'",
        "SELECT order_id, max(occurred_at) AT TIME ZONE 'Europe/Amsterdam' AS n FROM order_events GROUP BY 1",
    ),
    refused("read model 'mine' reads itself", "SELECT order_id FROM order_facts JOIN MINE USING (order_id)"),
    refused(_UNKNOWN.format("orders.parquet"), "SELECT order_id FROM 'orders.parquet'"),
    refused(_UNKNOWN.format("streams"), "SELECT order_id FROM streams"),
    refused(f"read model 'mine': {THEIRS}", "SELECT order_id, missing AS n FROM order_events"),
    *(
        refused(_ADDS.format("DOUBLE", name), f"SELECT order_id, {call} AS n FROM order_events GROUP BY 1")
        for name, call in (
            ("sum", "sum(total::DOUBLE)"), ("sum", "sum(total::FLOAT)"), ("avg", "avg(total / 3)"),
            ("sum", "sum(ln(total))"),
        )
    ),
    refused(
        _ADDS.format("DOUBLE", "sum"),
        "SELECT order_id, n FROM (SELECT order_id, sum(ln(total)) AS n FROM order_events GROUP BY 1)",
    ),
    refused(
        _ADDS.format("DOUBLE", "sum"),
        "SELECT order_id, (SELECT sum(of.total::DOUBLE) FROM order_events AS of WHERE of.order_id = o.order_id) AS n "
        "FROM order_events AS o",
    ),
)  # fmt: skip
