"""What any recurrence is built on; nothing here knows a clock."""
