"""How records show themselves: text, tables, HTML, data frames."""
