"""Every error this package raises, in one tree.

Each message says what happened, to what, and what to do next. Catch `CqrsLabError` for all of them,
or the branch that you can do something about::

    CqrsLabError
    ├── InvalidMessage (ValueError)      a command, event or query with a field that breaks its rule
    ├── InvalidTable (ValueError)        a table for append_table with a bad column or a bad row
    ├── InvalidMoment (ValueError)       an as-of moment that cannot be placed in the log
    ├── ExtraMissing (ImportError)       a package of an extra of cqrs-lab is not installed
    ├── ImportFailed (ValueError)        a file or table from elsewhere that cannot be read as events
    ├── DeclarationError                 a domain that does not fit together
    │   ├── UnsupportedField             a field whose type or name the log cannot store
    │   └── ReadModelRefused             a SELECT that is not a function of the events
    ├── CommandError
    │   ├── UnknownCommand               no decider handles it
    │   ├── RuleViolated                 the decider said no: `.rule` and `.state`
    │   ├── NotAllowed                   the policy said no: the sender may not
    │   ├── ConcurrencyError             the stream moved on: `.expected` and `.actual`
    │   └── IdempotencyConflict          the command id was used for another command
    ├── QueryError
    │   ├── UnknownQuery                 no read model answers it
    │   ├── UnknownReadModel             a name that nothing was declared under
    │   ├── NotServed                    the read model is not served that way here
    │   ├── RebuildNeeded                the stored rows come from another SELECT
    │   ├── RebuildRefused               the new rows were looked at and not wanted
    │   ├── ProjectionFailed             rows that the read model's table cannot hold
    │   ├── NotYet                       the serving did not reach a position in time: `.position`
    │   ├── QueryTooLong                 an answer that takes longer than a server allows
    │   ├── ReplayFailed                 a replay over several machines that did not come to its end
    │   ├── RowsRefused                  rows made elsewhere that are not those of this log
    │   └── QueryFailed                  DuckDB refused a statement
    ├── ServerError                      a server did not answer, or not as it should: `.status`
    └── StoreError
        ├── StoreLocked                  another process holds the file: `.pid`
        ├── StoreForked                  used in a process that was forked while it was open
        ├── StoreInUse                   this process holds it in another mode
        ├── StoreClosed                  used after close()
        ├── StoreMissing                 no store at that path
        ├── ReadOnlyStore                a write to a store opened read-only
        ├── StoreFull                    no room left on the disk or in memory
        ├── StoreCorrupt                 damaged or truncated files
        │   └── NotAStore                a file that holds something else
        │   └── SealDamaged              a sealed log whose files are missing or changed
        ├── StoreFormatError             written by another version of this package
        ├── UnknownEventType             the log holds a type or version that the domain does not know
        ├── ConstraintViolated           a key or NOT NULL of a table refused a row
        └── TransactionAborted           a statement failed earlier; nothing was committed
"""


class CqrsLabError(Exception):
    """Base of every error raised by cqrs_lab."""


class InvalidMessage(CqrsLabError, ValueError):
    """A message was built with a field that breaks its rule.

    Attributes:
        problems: what is wrong, one sentence for each field.
    """

    def __init__(self, name: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{name} was refused: {'; '.join(problems)}. Nothing was stored")
        self.problems = problems


class InvalidTable(CqrsLabError, ValueError):
    """A table offered to the log has a column or a row that breaks a rule; nothing was stored.

    Attributes:
        row: number of the first bad row, counted from 1, or None when a whole column is at fault.
        column: name of the column at fault, or None.
    """

    def __init__(self, message: str, *, row: int | None = None, column: str | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.column = column


class InvalidMoment(CqrsLabError, ValueError):
    """A moment for a time-travel question is naive, of the wrong type or outside the log."""


class ImportFailed(CqrsLabError, ValueError):
    """Data from elsewhere cannot become events; nothing was stored.

    Attributes:
        file: name of the file at fault, None when it is not one file.
        line: number of the line in that file, or of the row in a table, counted from 1; None when it is not one line.
        column: name of the column at fault, or None.
    """

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.column = column


class DeclarationError(CqrsLabError):
    """Deciders, events, queries or read models that do not fit together."""


class UnsupportedField(DeclarationError):
    """A field whose name or type cannot become a column of the log."""


class ReadModelRefused(DeclarationError):
    """A read model's SELECT is not a function of the events, or cannot be shown to be one."""


class CommandError(CqrsLabError):
    """A command was not carried out; nothing was stored."""


class UnknownCommand(CommandError):
    """No decider of the domain handles this command."""


class RuleViolated(CommandError):
    """A business rule refused the command.

    Attributes:
        rule: the rule, as a sentence that would have to be true.
        state: the state that broke it, as the decider names it.
    """

    def __init__(self, rule: str, state: object) -> None:
        super().__init__(f"the rule {rule!r} does not hold: the state is {state}; nothing was stored")
        self.rule = rule
        self.state = state


class NotAllowed(CommandError):
    """The policy does not allow this sender to send this command."""


class ConcurrencyError(CommandError):
    """The stream is not at the version that the writer expected.

    Attributes:
        stream: `category/id`.
        expected: the version that the writer had seen, None when it is not known.
        actual: the version that the stream is at.
    """

    def __init__(self, stream: str, expected: int | None, actual: int) -> None:
        super().__init__(
            f"stream {stream!r} is at version {actual}, not at {expected}: somebody else appended to it; "
            "nothing was stored. Load the stream again and decide again"
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class IdempotencyConflict(CommandError):
    """A command id came back with another command behind it."""


class QueryError(CqrsLabError):
    """A question could not be answered."""


class UnknownQuery(QueryError):
    """No read model of the domain answers this query."""


class UnknownReadModel(QueryError):
    """Nothing was declared under that name."""


class NotServed(QueryError):
    """The read model is not served in the asked way in this store."""


class RebuildNeeded(QueryError):
    """The stored rows were made by another SELECT than the one declared now."""


class RebuildRefused(QueryError):
    """A rebuild was not carried out: its rows were not wanted, or they would tell less of the log than the old ones."""


class ProjectionFailed(QueryError):
    """A read model's rows could not be written, for example because its key is not unique.

    Attributes:
        model: name of the read model, None when it is not one.
    """

    def __init__(self, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class NotYet(QueryError):
    """A serving did not reach the position that was asked for in the time that was given.

    Attributes:
        position: how far it got; None when nobody knows.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class QueryTooLong(QueryError):
    """An answer takes longer than the server allows."""


class ReplayFailed(QueryError):
    """A replay over several machines did not come to its end; nothing was taken over."""


class RowsRefused(QueryError):
    """Rows that were made elsewhere were not taken over, for they are not those of this log; the old ones stay."""


class QueryFailed(QueryError):
    """DuckDB refused a statement; the message is its own, followed by the statement."""


class ServerError(CqrsLabError):
    """A server could not be reached, or its answer was none that a client can use.

    Attributes:
        status: the status of its answer, None when there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ExtraMissing(CqrsLabError, ImportError):
    """A part of the package was used whose dependencies are not installed; the message names the extra."""


class StoreError(CqrsLabError):
    """The store could not do what was asked of it."""


class StoreLocked(StoreError):
    """Another process has the file open.

    Attributes:
        pid: process id of the holder, None when the system does not tell.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path} is open in {holder}; DuckDB lets one process have a file. Close it there "
            "(in a notebook: lab.close(), or Kernel > Shut Down), or work on a copy of the file"
        )
        self.pid = pid


class StoreForked(StoreError):
    """A process that was forked while the store was open has used it."""

    def __init__(self, path: str, opened_by: int) -> None:
        super().__init__(
            f"{path} was opened by process {opened_by}, and this process is a fork of it: both would write one file. "
            "Nothing was done. Leave the store to the process that opened it, and start others without a fork: "
            'multiprocessing.get_context("spawn")'
        )


class StoreInUse(StoreError):
    """This process has the file open in another mode."""


class StoreClosed(StoreError):
    """The lab was used after it was closed."""


class StoreMissing(StoreError):
    """There is no store at that path."""


class ReadOnlyStore(StoreError):
    """A write was asked of a store that is open read-only."""


class StoreFull(StoreError):
    """The disk or the memory has no room left; what was acknowledged before is kept."""


class StoreCorrupt(StoreError):
    """The files are damaged or truncated; they were left as they are."""


class NotAStore(StoreCorrupt):
    """The file holds something else than a cqrs_lab store; it was left as it is."""


class SealDamaged(StoreCorrupt):
    """The files of a sealed log are missing, or not as they were written."""


class StoreFormatError(StoreError):
    """The store was written in a format that this version does not read."""


class UnknownEventType(StoreError):
    """The log holds an event type, or a version of it, that the domain does not declare."""


class ConstraintViolated(StoreError):
    """A table's key or NOT NULL refused a row; the transaction was rolled back."""


class TransactionAborted(StoreError):
    """A statement of the transaction had failed, so nothing of it was committed."""
