"""What people read: figures as text, pictures, pages. Nothing is computed here."""
