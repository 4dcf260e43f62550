"""The building blocks of any recurrence; nothing here depends on a clock."""
