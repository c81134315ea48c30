"""What one sees who only looks: successive looks at a spool, and how a person says what they show. Private."""
