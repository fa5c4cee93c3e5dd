import unittest

from guestbook.pages import page


class Pages(unittest.TestCase):
    def test_a_visitor_cannot_bring_markup(self):
        self.assertIn("&lt;b&gt;", page({"visitors": ["<b>"], "total": 1}))
