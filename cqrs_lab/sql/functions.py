"""Which of DuckDB's functions are functions of the events: one list of our own, name by name.

Owns the judgement, and asks no database. DuckDB's catalogue is not enough: it calls `age(t)`, `version()` and
`current_schema()` stable, although they depend on the day or the session, and an overload of `-` for times with a zone
unstable, although the time zone is pinned when a store is opened (`cqrs_lab.store.connect.PINNED`). A function that is
not listed is refused by name, so somebody looks at what a new DuckDB brings before a read model trusts it.
"""

from __future__ import annotations

# Aggregates whose result does not depend on the order in which rows arrive. Sums of DOUBLE do; a lab refuses those when
# it binds a read model, because only then the types are known.
ORDERLESS = frozenset(
    """approx_count_distinct avg bit_and bit_or bit_xor bitstring_agg bool_and bool_or count count_if count_star countif
    histogram histogram_exact mad max mean median min quantile quantile_cont quantile_disc regr_count sum
    sum_no_overflow""".split()
)
SUMS = frozenset("sum sum_no_overflow avg mean".split())
# These pick or list rows, so they need to be told an order without ties: the position.
BY_ORDER = frozenset("first last any_value arbitrary list array_agg string_agg group_concat listagg".split())
BY_ARGUMENT = frozenset(
    """arg_max arg_min argmax argmin max_by min_by arg_max_null arg_min_null arg_max_nulls_last
    arg_min_nulls_last""".split()
)
# These add inexact numbers, draw samples, or break ties by the order in which rows arrive.
BY_ARRIVAL = frozenset(
    """approx_quantile approx_top_k combine_aggr corr covar_pop covar_samp decimal_average entropy favg fsum kahan_sum
    kurtosis kurtosis_pop lttb mode product regr_avgx regr_avgy regr_intercept regr_r2 regr_slope regr_sxx regr_sxy
    regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp sumkahan var_pop var_samp variance
    variant_group_object""".split()
)
# What says the same as one of those; of exact numbers sums are exact.
INSTEAD = {
    "mode": "count each value in a read model of its own and take arg_max(value, (n, value)) of that",
    "product": "multiply exact numbers by list_reduce(list(x ORDER BY position), lambda a, b: a * b)",
    **dict.fromkeys(
        ("stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"),
        "of exact numbers, sqrt((count(*) * sum(x * x) - sum(x) * sum(x)) / (count(*) * (count(*) - 1))) is the "
        "deviation of a sample",
    ),
    **dict.fromkeys(("favg", "fsum", "kahan_sum", "sumkahan"), "cast to DECIMAL and take sum()"),
    **dict.fromkeys(("approx_quantile", "reservoir_quantile"), "take quantile_disc() or median()"),
    "approx_top_k": "count each value in a read model of its own and rank those",
}
AGGREGATES = ORDERLESS | BY_ORDER | BY_ARGUMENT | BY_ARRIVAL
# Window functions that give rows with equal order the same answer, and those that tell such rows apart.
RANKS = frozenset("rank rank_dense dense_rank percent_rank cume_dist".split())
WINDOWS = RANKS | frozenset("fill first_value lag last_value lead nth_value ntile row_number".split())
TABLE_FUNCTIONS = frozenset("unnest range generate_series".split())

# Scalar functions and macros that answer the same for the same arguments, under the settings that are pinned.
PURE = frozenset(
    """abs acos acosh add age aggregate alias apply array_aggr array_aggregate array_append array_apply array_cat
    array_concat array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance
    array_distinct array_dot_product array_extract array_filter array_grade_up array_has array_has_all
    array_has_any array_indexof array_inner_product array_intersect array_length array_negative_dot_product
    array_negative_inner_product array_pop_back array_pop_front array_position array_prepend array_push_back
    array_push_front array_reduce array_resize array_reverse array_reverse_sort array_select array_slice
    array_sort array_to_json array_to_string array_to_string_comma_default array_transform array_unique
    array_value array_where array_zip ascii asin asinh atan atan2 atanh bar base64 bin binom bit_count
    bit_length bit_position bitstring bitstring_byte_comparable can_cast_implicitly cardinality cast_to_type
    cbrt ceil ceiling century char_length character_length chr concat concat_ws constant_or_null contains cos
    cosh cot damerau_levenshtein date_add date_diff date_part date_sub date_trunc datediff datepart datesub
    datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade decimal_division decode degrees
    divide editdist3 element_at encode ends_with enum_code enum_first enum_last enum_range enum_range_boundary
    epoch epoch_ms epoch_ns epoch_us equi_width_bins era even exp factorial fdiv filter flatten floor fmod
    format format_bytes formatreadabledecimalsize formatreadablesize from_base64 from_binary from_hex from_json
    from_json_strict gamma gcd generate_series get_bit get_type grade_up greatest greatest_common_divisor
    hamming hex hive_partition_component hour if ilike_escape instr invoke is_histogram_other_bin isfinite isinf
    isnan isodow isoyear jaccard jaro_similarity jaro_winkler_similarity json json_array json_array_length
    json_contains json_deep_merge json_exists json_extract json_extract_path json_extract_path_text
    json_extract_string json_insert json_keys json_merge_patch json_merge_patch_diff json_normalize json_object
    json_pretty json_quote json_remove json_replace json_set json_strip_nulls json_structure json_transform
    json_transform_strict json_type json_valid json_value julian last_day lcase lcm least least_common_multiple
    left left_grapheme len length length_grapheme levenshtein lgamma like_escape list_aggr list_aggregate
    list_any_value list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or
    list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance
    list_cosine_similarity list_count list_distance list_distinct list_dot_product list_element list_entropy
    list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_histogram
    list_indexof list_inner_product list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max
    list_median list_min list_mode list_negative_dot_product list_negative_inner_product list_pack list_position
    list_prepend list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_sem
    list_skewness list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform
    list_unique list_value list_var_pop list_var_samp list_where list_zip ln log log10 log2 lower lpad ltrim
    make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz make_type map
    map_concat map_contains map_contains_entry map_contains_value map_entries map_extract map_extract_value
    map_from_entries map_keys map_values md5 md5_number md5_number_lower md5_number_upper microsecond millennium
    millisecond minute mismatches mod month monthname multiply nanosecond nextafter nfc_normalize
    normalized_interval not_ilike_escape not_like_escape nullif octet_length ord overlay parse_dirname
    parse_dirpath parse_filename parse_formatted_bytes parse_path path_join pi position pow power prefix printf
    quarter radians range reduce regexp_escape regexp_extract regexp_extract_all regexp_full_match
    regexp_matches regexp_replace regexp_split_to_array remap_struct repeat replace replace_type reverse right
    right_grapheme round round_even roundbankers row row_to_json rpad rtrim second set_bit sha1 sha256 sign
    signbit sin sinh split split_part sqrt st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_crs
    st_geomfromgeojson st_geomfromwkb st_intersects_extent st_setcrs starts_with str_split str_split_regex
    strftime string_split string_split_regex string_to_array strip_accents strlen strpos strptime struct_concat
    struct_contains struct_extract struct_extract_at struct_has struct_indexof struct_insert struct_keys
    struct_pack struct_position struct_update struct_values substr substring substring_grapheme subtract suffix
    switch tan tanh time_bucket timetz_byte_comparable timezone timezone_hour timezone_minute to_base to_base64
    to_binary to_centuries to_days to_decades to_hex to_hours to_json to_microseconds to_millennia
    to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years translate trim
    trunc try_strptime typeof ucase unbin unhex unicode union_extract union_tag union_value unpivot_list upper
    url_decode url_encode uuid_extract_timestamp uuid_extract_version variant_array_length
    variant_bytes_to_variant variant_comparator variant_contains variant_exists variant_extract
    variant_extract_string variant_keys variant_normalize variant_to_parquet_variant variant_type variant_typeof
    vertex_extract week weekday weekofyear xor year yearweek""".split()
)
OPERATORS = frozenset(
    """!= !__postfix !~~ !~~* % & && * ** + - -> ->> / // < <-> << <= <=> <@ = > >= >> @ @> ^ ^@ | || ~ ~~ ~~*
    ~~~""".split()
) | {"is distinct from", "is not distinct from"}
_PURE_FAMILIES = ("collate_", "icu_collate_")  # what COLLATE is bound to

_CLOCK = "it asks the clock; use occurred_at or recorded_at"
_CHANCE = "it answers differently every time"
_SESSION = "it asks the session or the catalogue, not the log"
_EFFECT = "it does something instead of giving an answer"
_READS = "it reads something else than the events"
_INTERNAL = "it is there for DuckDB's own use"
_LISTS = "it lists rows in the order in which they arrive; use list(… ORDER BY position)"
_INEXACT = "it hides a sum of inexact numbers; write sum(x * w) / sum(w) over DECIMAL values"
_ROWS = "it hides an unnest; write unnest(…) in FROM"

_REFUSED = {
    reason: frozenset(names.split())
    for reason, names in {
        _CLOCK: """ago current_date current_localtime current_localtimestamp current_time current_timestamp
            get_current_time get_current_timestamp localtime localtimestamp now today transaction_timestamp""",
        _CHANCE: "gen_random_uuid random setseed uuid uuidv4 uuidv7",
        _SESSION: """col_description current_catalog current_connection_id current_database current_query
            current_query_id current_role current_schema current_schemas current_setting current_transaction_id
            current_user format_pg_type format_type get_block_size getvariable in_search_path map_to_pg_oid
            map_type_id_to_pg_oid obj_description session_user shobj_description stats txid_current user vector_type
            version""",
        _EFFECT: "assert_true currval error nextval setval sleep_ms write_log",
        _READS: """getenv json_execute_serialized_sql json_serialize_plan query query_table read_blob read_text""",
        _INTERNAL: """combine create_sort_key finalize icu_sort_key index_key json_copy_strftime_if_date
            json_copy_strftime_if_timestamp json_deserialize_sql json_serialize_sql parse_duckdb_log_message
            to_aggregate_state""",
        _LISTS: "json_group_array json_group_object json_group_structure variant_group_array",
        _INEXACT: "geomean geometric_mean wavg weighted_avg",
        _ROWS: "generate_subscripts regexp_split_to_table",
        "its answer may change with the next version of DuckDB; use md5() or sha256()": "hash",
    }.items()
}
_REFUSED_FAMILIES = {
    "pg_": _SESSION,
    "has_": _SESSION,
    "inet_": _SESSION,
    "__internal_": _INTERNAL,
}
_BOUND_CASTS = frozenset(["__between", "__cast"])  # what BETWEEN and CAST are bound to

# What SQL writes without parentheses, and DuckDB parses as a column.
KEYWORDS = frozenset(
    """current_catalog current_date current_role current_schema current_time current_timestamp current_user localtime
    localtimestamp session_user user""".split()
)
# Lists have an order, so an aggregate over one answers the same, unless it draws a sample.
_OVER_LISTS = frozenset("list_aggr list_aggregate array_aggr array_aggregate aggregate".split())


def refusal(name: str, arguments: int | None = None) -> str | None:
    """Return why a function is not a function of the events; None when it is one, or is not known here.

    Args:
        name: as DuckDB's catalogue spells it, in any case.
        arguments: how many it is called with, None when that cannot be told. `age(t)` counts from today, `age(a, b)`
            does not.
    """
    name = name.lower()
    if name == "age" and arguments == 1:
        return _CLOCK
    for reason, names in _REFUSED.items():
        if name in names:
            return reason
    for prefix, reason in _REFUSED_FAMILIES.items():
        if name.startswith(prefix):
            return reason
    return None


def is_classified(name: str) -> bool:
    """Return whether somebody has said of a function whether it is a function of the events."""
    name = name.lower()
    known = PURE | OPERATORS | AGGREGATES | WINDOWS | TABLE_FUNCTIONS | _BOUND_CASTS
    return name in known or name.startswith(_PURE_FAMILIES) or refusal(name) is not None


def draws_a_sample(name: str, second: object) -> bool:
    """Return whether an aggregate over a list may answer differently each time.

    Args:
        second: its second argument, which names the aggregate; None when it is not a constant.
    """
    return name.lower() in _OVER_LISTS and (not isinstance(second, str) or second.lower() == "reservoir_quantile")
