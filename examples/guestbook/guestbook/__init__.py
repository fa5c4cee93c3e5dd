"""A guestbook: visitors sign, the page shows who was here."""
