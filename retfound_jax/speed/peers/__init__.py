"""What our step is measured beside: other libraries' models, trained in processes of their own."""
